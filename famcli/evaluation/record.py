"""The schema of a run record, ``results/<run-id>/run.json``."""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from famcli.claim import is_claimed
from famcli.errors import GO_ON, UserError, printable
from famcli.evaluation.environment import Environment
from famcli.fields import parse_value, read_fields, read_json
from famcli.files import write_text
from famcli.metrics.statistics import Metric
from famcli.version import __version__

logger = logging.getLogger(__name__)

Setting = str | int | float | bool
"""Of a cell: what its samples have in common."""

SCHEMA_VERSION = 2
RECORD_NAME = "run.json"


class _NamedFields(TypedDict, total=False):
    spec: str
    longest_text: int


class ModelFields(_NamedFields):
    """The model: ``config`` is its whole ``ModelConfig``, ``receptive_field`` is in tokens, null if unbounded.

    ``spec`` is what was given to ``--model``, where the user gave the model another ``name``.
    ``longest_text`` is what a model of others that sees all of a text was made to read, in tokens, where that is known.
    ``fam`` says ``no FAM adapter``, or what another memory says, where nobody trained the memory's weights; else null.
    """

    name: str
    config: dict[str, Any]
    weights_sha256: str
    tokenizer: str
    parameters: int
    receptive_field: int | None
    fam: str | None


class _PluginFields(TypedDict, total=False):
    source_sha256: str


class DataFields(TypedDict, total=False):
    """Where data comes from; a task of another package may say more, and less."""

    source: str
    name: str
    revision: str | None
    sha256: str
    rows: int


class _PaperFields(TypedDict, total=False):
    paper: bool


class MetricFields(_PaperFields):
    """A metric as tables need it, see ``famcli.task.MetricSpec``."""

    higher_is_better: bool
    mean: Literal["arithmetic", "geometric"]


class TaskFields(_PluginFields):
    """The task: all its options, defaults included.

    ``template_sha256`` is of the words around the data in its prompts; ``data`` says where the data comes from, null
    for a task without; ``metrics`` says of each score whether it is the paper's (``paper``), whether more of it is
    better (``higher_is_better``), and how it is averaged (``mean``); ``source_sha256`` is of the source of a task that
    another package brings.
    """

    name: str
    version: int
    options: dict[str, Any]
    template_sha256: str
    data: DataFields | None
    metrics: dict[str, MetricFields]


class SamplingFields(TypedDict):
    """How answers were drawn, see ``famcli.evaluation.drawing.Sampling``."""

    temperature: float
    top_p: float
    draws: int


class _SpecialTokenFields(TypedDict, total=False):
    before: list[int]
    after: list[int]
    chat_template_sha256: str
    chat_template_args: dict[str, Any]
    system_prompt: str
    thinking: int
    sampling: SamplingFields


class ContextFields(_SpecialTokenFields):
    """The bound on prompt and answer, in tokens, and which part of a document beyond it is cut.

    Where special tokens or a chat template stand around every prompt: their token ids ``before`` and ``after`` it, and
    the template's hash; ``chat_template_args`` that it was given; ``system_prompt``, the text of the system's message;
    ``thinking``, the most tokens of thoughts, which are no part of an answer; ``sampling``, how answers were drawn:
    where it is not there, each token is the most likely one.
    """

    max_context: int | None
    truncate: str | None


class Skipped(TypedDict):
    """A sample that the task failed on, its ``id`` and ``why``: no score counts it."""

    id: str
    why: str


class ShardFields(TypedDict):
    """The part of a run that this run is, see ``famcli.evaluation.shards``.

    ``index`` of ``of``, counted from 1; ``run_id`` is that of the whole run; ``places`` says where each sample, by its
    id, stands in it; ``complete`` names the metrics that are (``famcli.task.MetricSpec``).
    """

    index: int
    of: int
    run_id: str
    places: dict[str, int]
    complete: list[str]


class LeftOut(TypedDict):
    """Samples that were not asked, as they do not fit the context: ``what`` they are, how many, and ``why``."""

    what: str
    samples: int
    why: str


class _LaterFields(TypedDict, total=False):
    tokens_computed: int
    answers_empty: int
    answers_cut: int
    seconds_to_first_answer: float


class Cost(_LaterFields):
    """What the answers cost, over all processes of the run.

    Of generated answers, where there are any: how many are empty, and how many were cut at the budget, though a stop
    string was to end them.

    ``tokens_read`` are tokens of prompts and options, a document counted once for all samples that share it;
    ``tokens_read_alone`` is what a harness would read that asks each question, and weighs each option, by itself;
    ``tokens_computed`` are those of ``tokens_read`` that the model computed: it may skip what cannot reach any answer;
    records of older versions lack it, see ``famcli.evaluation.cost.known_cost``. ``tokens_cut`` are those of documents
    left out as the user asked; ``tokens_per_second`` counts computed and generated ones. ``peak_memory_bytes`` is the
    most memory during the run: what was allocated on a CUDA device, elsewhere the largest resident set of the process,
    program and weights included, what it holds for other models left out; ``state_bytes`` is the largest state of one
    stream. ``seconds_to_first_answer`` is the mean over documents of the seconds from the start of reading one to its
    first answer; records of older versions lack it.
    """

    tokens_read: int
    tokens_read_alone: int
    tokens_cut: int
    tokens_generated: int
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    state_bytes: int


@dataclass
class RunRecord:
    """One task on one model, mirrored to ``run.json``.

    Attributes:
        path: the run's directory (not in the file).
        run_id: hash of what determines the answers, with task and model in front to be readable; the directory's name.
        schema_version: ``SCHEMA_VERSION`` of the program that wrote it.
        status: ``running`` from the first sample to the last, also of a run that was broken off: see ``standing``.
        model, task, environment, cost: see their types.
        seed, limit, context: as given.
        device, dtype: as computed on, e.g. ``cuda:0``, ``float32``.
        metrics: the task's scores over all samples, the headline first; those that apply to none are left out.
        cells: for each cell its settings, then for each metric its mean ``NAME`` and standard error ``NAME_stderr``,
            then ``n``; both null for a metric that applies to no sample of the cell.
        started, finished: ISO 8601 in UTC; of the first process, and of the last or ``None``.
        skipped: samples that ``--on-error skip`` went on without; left out of the file where there are none.
        limit_documents: as given; left out of the file where it was not.
        left_out: cells and documents that do not fit the context; left out of the file where there are none.
        shard: the part of another run that this one is; left out of the file of a whole run.
        planned: samples in all, of a run that is not finished; left out of the file of one that is.
    """

    path: Path
    run_id: str
    schema_version: int
    status: Literal["running", "finished"]
    model: ModelFields
    task: TaskFields
    seed: int
    limit: int | None
    context: ContextFields
    device: str
    dtype: str
    environment: Environment
    metrics: dict[str, Metric]
    cells: list[dict[str, Any]]
    cost: Cost
    started: str
    finished: str | None
    skipped: list[Skipped] = field(default_factory=list)
    limit_documents: int | None = None
    left_out: list[LeftOut] = field(default_factory=list)
    shard: ShardFields | None = None
    planned: int | None = None

    @property
    def standing(self) -> Literal["running", "interrupted", "finished"]:
        """``status``, but a run that is not finished is ``interrupted`` where no process is at work on it."""
        return self.status if self.status == "finished" or is_claimed(self.path) else "interrupted"

    @property
    def spec(self) -> str:
        """What was given to ``--model``, without a name."""
        return self.model.get("spec", self.model["name"])

    @property
    def samples(self) -> int:
        """How many samples its scores are of, known at its end."""
        return sum(cell["n"] for cell in self.cells)

    @property
    def answers(self) -> int:
        """How many answers its scores are of: several a sample, where so many were drawn."""
        sampling = self.context.get("sampling")
        return self.samples * (sampling["draws"] if sampling else 1)

    def save(self) -> None:
        """Writes ``run.json``, whole or not at all.

        Raises:
            UserError: it cannot be written.
        """
        values = asdict(self)
        del values["path"]
        for name in ("skipped", "limit_documents", "left_out", "shard", "planned"):
            if not values[name]:
                del values[name]
        text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_text(self.path / RECORD_NAME, text, hint=GO_ON, within=self.path.parent)


def same_spec(first: str, second: str) -> bool:
    """Whether two specs say the same; the order of fields says nothing."""
    return first.split(",")[0] == second.split(",")[0] and sorted(first.split(",")) == sorted(second.split(","))


def spelled(spec: str) -> tuple[str, ...]:
    """A spec without what may be written otherwise: the folders of a path, and the order of fields."""
    base, *fields = spec.split(",")
    return (Path(base).name or base, *sorted(fields))


def skipped_words(record: RunRecord) -> str:
    """How many samples of a run were skipped, which, and why the first of them."""
    ids = [one["id"] for one in record.skipped]
    shown = ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
    why = f"; the first: {record.skipped[0]['why']}" if ids else ""
    return f"{len(ids)} of {len(ids) + record.samples} samples, which count in no score: {shown}{why}"


def left_out_words(left_out: list[LeftOut]) -> str:
    """How many samples do not fit, and of what."""
    names = [one["what"] for one in left_out]
    more = len(names) - _SHOWN_CELLS
    shown = "; ".join(names[:_SHOWN_CELLS]) + (f"; and {more} more" if more > 0 else "")
    samples = sum(one["samples"] for one in left_out)
    return f"{samples} samples ({shown})"


_SHOWN = 5
_SHOWN_CELLS = 8


def load_record(path: Path) -> RunRecord:
    """Reads a run record.

    Args:
        path: the run's directory, or its ``run.json``.

    Raises:
        UserError: the file is missing, damaged, or of another schema version.
    """
    file = path / RECORD_NAME if path.is_dir() and path.name != RECORD_NAME else path
    where = f"the run record {file}"
    values = read_json(file, where)
    version = values.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{where} has schema version {printable(str(version))}; famcli {__version__} reads version {SCHEMA_VERSION}"
        )
    if isinstance(values.get("model"), dict):
        values["model"].setdefault("fam", None)  # older versions knew no adapters
    record = read_fields(RunRecord, {**values, "path": file.parent}, where, others=True)
    _check_scores(record, where)
    return record


def _check_scores(record: RunRecord, where: str) -> None:
    """What belongs together in a record must: each cell has a number of samples, and every score of the run.

    Raises:
        UserError: names the field that is missing or wrong.
    """
    for name in record.metrics.keys() - record.task["metrics"].keys():
        raise UserError(f"{where}: field 'metrics.{printable(name)}' is a score that its field 'task.metrics' lacks")
    scores = {name for metric in record.task["metrics"] for name in (metric, f"{metric}_stderr")}
    for i, cell in enumerate(record.cells):
        missing = [f"'cells[{i}].{printable(name)}'" for name in ("n", *record.metrics) if name not in cell]
        if missing:
            raise UserError(f"{where} lacks the field{'s' * (len(missing) > 1)} {', '.join(missing)}")
        for name, value in cell.items():
            kind = int if name == "n" else float | None if name in scores else Setting
            parse_value(value, kind, f"cells[{i}].{printable(name)}", where)
    counts = [*(cell["n"] for cell in record.cells), *(metric.n for metric in record.metrics.values())]
    if min(counts, default=0) < 0:
        raise UserError(f"{where}: a number of samples, 'n', must be at least 0, not {min(counts)}")
    field = record.model["receptive_field"]
    if field is not None and field < 1:
        raise UserError(f"{where}: field 'model.receptive_field' must be at least 1 or none, not {field}")


_PUT_ASIDE = re.compile(r"-[0-9a-f]{12}\.old-[0-9]+$")


def load_records(results: Path) -> list[RunRecord]:
    """All run records directly under ``results``, the newest first.

    Left out are runs that ``--fresh`` put aside and, with a warning, records that cannot be read.

    Raises:
        UserError: the directory cannot be read.
    """
    records = []
    try:
        directories = sorted(results.iterdir()) if results.is_dir() else []
    except OSError as error:
        raise UserError(f"cannot read {results}: {error.strerror}") from error
    for directory in directories:
        if _PUT_ASIDE.search(directory.name) or not _has_record(directory):
            continue
        try:
            records.append(load_record(directory / RECORD_NAME))
        except UserError as error:
            logger.warning("warning: %s", error.message)
    return sorted(records, key=lambda record: (record.finished or record.started, record.run_id), reverse=True)


def _has_record(directory: Path) -> bool:
    """Whether anything stands in its place; so it may be for a directory into which nobody may look."""
    try:
        os.lstat(directory / RECORD_NAME)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
