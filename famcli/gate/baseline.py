"""What a check holds new runs against: scores with their tolerances, and the scores of every sample."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from famcli.compare.cells import Setting
from famcli.compare.pairing import check_scores
from famcli.errors import UserError, printable
from famcli.evaluation.cost import cost
from famcli.evaluation.journal import Entry
from famcli.evaluation.record import ContextFields, ModelFields, RunRecord, TaskFields
from famcli.fields import from_json, parse_value, read_fields
from famcli.files import read_bytes, write_text
from famcli.version import __version__

Kind = Literal["absolute", "relative", "no_significant_drop"]

VERSION = 1
MARK = "famcli_baseline"
"""The first field of the file, so that no other file is taken for one and overwritten."""

NOWHERE = Path(os.devnull, "baseline")
"""Where the files of a kept run are: no file can be there."""


@dataclass(frozen=True)
class Tolerance:
    """How much worse a score may be.

    Attributes:
        kind: ``absolute`` and ``relative`` bound the difference of the means; ``no_significant_drop`` tests the samples
            that both answered.
        amount: the most by which the mean may be worse, as it is or as a share of the baseline; or the level of the
            one-sided test, between 0 and 1.
    """

    kind: Kind
    amount: float

    def to_json(self) -> dict[str, Any]:
        """``{"absolute": 0.02}``, ``{"no_significant_drop": {"level": 0.05}}``."""
        return {self.kind: {"level": self.amount} if self.kind == "no_significant_drop" else self.amount}

    @classmethod
    def from_json(cls, value: Any) -> Tolerance:
        """Reads what ``to_json`` gives; raises ``ValueError`` saying what it must be."""
        expected = 'a tolerance must be {"absolute": 0.02}, {"relative": 0.02} or {"no_significant_drop": '
        problem = ValueError(f'{expected}{{"level": 0.05}}}}, not {json.dumps(value)}')
        if not isinstance(value, dict) or len(value) != 1:
            raise problem
        kind, amount = next(iter(value.items()))
        if kind not in get_args(Kind):
            raise problem
        if kind == "no_significant_drop":
            if not isinstance(amount, dict) or amount.keys() != {"level"}:
                raise problem
            amount = amount["level"]
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not amount >= 0:
            raise problem
        if kind == "no_significant_drop" and not 0 < amount < 1:
            raise problem
        return cls(kind, amount)

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any], where: str) -> Tolerance:
        """As ``from_json``; raises ``UserError`` with the place ``where``."""
        try:
            return cls.from_json(fields)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None


@dataclass(frozen=True)
class Score:
    """The mean a run had by one metric, over the samples of the cell ``settings`` or, where that is empty, over all."""

    metric: str
    settings: Mapping[str, Setting]
    value: float
    n: int
    tolerance: Tolerance

    @property
    def key(self) -> tuple[Any, ...]:
        """Metric and cell: no two scores of a run have both."""
        return score_key(self.metric, self.settings)


def score_key(metric: str, settings: Mapping[str, Setting]) -> tuple[Any, ...]:
    """See ``Score.key``."""
    return metric, *sorted(settings.items())


@dataclass(frozen=True)
class CostGate:
    """A cost as the ratio to a yardstick, and how many times as much is let through."""

    ratio: float
    factor: float


@dataclass(frozen=True)
class CostGates:
    """What cost is gated by, on one kind of device.

    Attributes:
        device, dtype, threads: what the ratios hold for.
        memory: peak memory to that before the first token was read; less is better. ``None``: not gated.
        throughput: tokens/s to GFLOP/s of a matrix product, by run id; more is better.
    """

    device: str
    dtype: str
    threads: int
    memory: CostGate | None
    throughput: Mapping[str, CostGate]


@dataclass(frozen=True)
class BaselineRun:
    """A run as the baseline keeps it.

    Attributes:
        record: with what decides whether other runs are comparable; all else is blank.
        scores: what is checked.
        entries: the samples by id, with scores, weights, cell and document; ``reference`` is a ``question`` digest.
    """

    record: RunRecord
    scores: tuple[Score, ...]
    entries: Mapping[str, Entry]


@dataclass(frozen=True)
class Baseline:
    """A baseline file."""

    runs: tuple[BaselineRun, ...]
    cost: CostGates | None = None


def question(reference: str, cell: Mapping[str, Any]) -> str:
    """Digest of a sample's right answer and cell: samples of one id and one digest are the same question."""
    return hashlib.sha256(json.dumps([reference, cell], sort_keys=True).encode()).hexdigest()[:8]


def kept_entry(
    id: str, cell: Mapping[str, Any], document: str, digest: str, scores: dict[str, float], weights: dict[str, float]
) -> Entry:
    """A sample with what a baseline keeps of it."""
    return Entry(
        id=id,
        cell=dict(cell),
        document=document,
        reference=digest,
        scores=scores,
        weights=weights,
        details={},
        answer={},
        prompt_sha256="",
        output="",
        prompt_tokens=0,
        shared_tokens=0,
        option_tokens=0,
        cut_tokens=0,
        requests=0,
        seconds=0.0,
        state_bytes=0,
        peak_memory_bytes=0,
    )


def kept_record(record: RunRecord, cells: Iterable[Mapping[str, Any]]) -> RunRecord:
    """A record with what a baseline keeps of it; ``cells`` are settings without scores."""
    return dataclasses.replace(record, path=NOWHERE, cells=[dict(cell) for cell in cells])


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Writes the file, whole or not at all; a line a score and a line a sample, so that changes can be read.

    Raises:
        UserError: it cannot be written.
    """
    values: dict[str, Any] = {MARK: VERSION, "famcli": __version__, "runs": [_run_values(run) for run in baseline.runs]}
    if baseline.cost:
        values["cost"] = dataclasses.asdict(baseline.cost)
    write_text(path, _layout(values) + "\n")


def read_baseline(path: Path) -> Baseline:
    """Reads a baseline.

    Raises:
        UserError: it is missing, damaged, or not one.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no baseline {path}", "to make one, add --update") from error
    except OSError as error:
        raise UserError(f"cannot read the baseline {path}: {error.strerror}") from error
    if not _marked(content):
        raise UserError(f"{path} is not a famcli baseline", "to make one, give another name and add --update")
    try:
        return _read(content, f"the baseline {path}")
    except UserError as error:
        raise UserError(error.message, "restore it, or make a new one with --update") from error


def _read(content: bytes, where: str) -> Baseline:
    try:
        values = from_json(content)
    except ValueError as error:
        raise UserError(f"{where} is damaged: it is not valid JSON: {error}") from error
    version = values.get(MARK) if isinstance(values, dict) else None
    if version != VERSION:
        raise UserError(f"{where} has version {printable(str(version))}; famcli {__version__} reads {VERSION}")
    found = read_fields(_File, values, where, others=True)
    runs = tuple(_run(run, where) for run in found.runs)
    if not any(run.scores for run in runs):
        raise UserError(f"{where} is damaged: it has no scores, so nothing could fail")
    return Baseline(runs, found.cost)


def is_baseline(path: Path) -> bool:
    """Whether a file was a baseline, whole or damaged."""
    try:
        return _marked(read_bytes(path))
    except OSError:
        return False


def _marked(content: bytes) -> bool:
    return MARK.encode() in content[:100]


def _run_values(run: BaselineRun) -> dict[str, Any]:
    record = run.record
    names = list(record.task["metrics"])

    def row(entry: Entry) -> list[Any]:
        columns = [
            [entry.scores[name], entry.weights[name]] if name in entry.weights else entry.scores[name] for name in names
        ]
        return [entry.id, entry.document, entry.reference, record.cells.index(entry.cell), *columns]

    return {
        "run_id": record.run_id,
        "model": {name: record.model[name] for name in ("name", "weights_sha256", "tokenizer")},
        "task": record.task,
        "seed": record.seed,
        "limit": record.limit,
        **({"limit_documents": record.limit_documents} if record.limit_documents else {}),
        "context": record.context,
        "device": record.device,
        "dtype": record.dtype,
        "finished": record.finished,
        "scores": [
            {
                "metric": score.metric,
                "cell": score.settings,
                "value": score.value,
                "n": score.n,
                "tolerance": score.tolerance.to_json(),
            }
            for score in run.scores
        ],
        "cells": record.cells,
        "columns": "id, document, digest of the question, number of the cell, then scores or [score, weight]",
        "samples": [row(entry) for entry in run.entries.values()],
    }


@dataclass(frozen=True)
class _File:
    runs: list[_RunFile]
    cost: CostGates | None = None


@dataclass(frozen=True)
class _RunFile:
    """A run as the file has it; a row of ``samples`` is what ``columns`` there says."""

    run_id: str
    model: _ModelFile
    task: TaskFields
    seed: int
    limit: int | None
    context: ContextFields
    device: str
    dtype: str
    finished: str | None
    scores: list[_ScoreFile]
    cells: list[dict[str, Setting]]
    samples: list[list[Any]]
    limit_documents: int | None = None


class _ModelFile(TypedDict):
    name: str
    weights_sha256: str
    tokenizer: str


@dataclass(frozen=True)
class _ScoreFile:
    metric: str
    cell: dict[str, Setting]
    value: float
    n: int
    tolerance: Tolerance


def _run(run: _RunFile, where: str) -> BaselineRun:
    record = RunRecord(
        path=NOWHERE,
        run_id=run.run_id,
        schema_version=0,
        status="finished",
        model=ModelFields(
            name=run.model["name"],
            weights_sha256=run.model["weights_sha256"],
            tokenizer=run.model["tokenizer"],
            config={},
            parameters=0,
            receptive_field=None,
            fam=None,
        ),
        task=run.task,
        seed=run.seed,
        limit=run.limit,
        context=run.context,
        device=run.device,
        dtype=run.dtype,
        environment={"python": "", "torch": "", "famcli": "", "git_commit": None, "platform": ""},
        metrics={},
        cells=run.cells,
        cost=cost([]),
        started="",
        finished=run.finished,
        limit_documents=run.limit_documents,
    )
    where = f"{where}, run {run.run_id}"
    scores = tuple(Score(s.metric, s.cell, s.value, s.n, s.tolerance) for s in run.scores)
    for score in scores:
        if score.metric not in run.task["metrics"]:
            raise UserError(f"{where}: its task does not say whether more {printable(score.metric)} is better")
    means = {name: metric["mean"] for name, metric in run.task["metrics"].items()}
    entries: dict[str, Entry] = {}
    for row in run.samples:
        entry = _entry(row, list(means), run.cells, where)
        check_scores(entry, means, where)
        if entry.id in entries:
            raise UserError(f"{where}: sample {printable(entry.id)} is there twice")
        entries[entry.id] = entry
    return BaselineRun(record, scores, entries)


def _entry(row: list[Any], names: list[str], cells: list[dict[str, Setting]], where: str) -> Entry:
    if len(row) != 4 + len(names):
        raise UserError(f"{where}: a sample has {len(row)} columns, not {4 + len(names)}")
    id, document, digest = (parse_value(text, str, "samples", where) for text in row[:3])
    if type(row[3]) is not int or not 0 <= row[3] < len(cells):
        raise UserError(f"{where}: sample {printable(id)} is in no cell")
    scores, weights = dict[str, float](), dict[str, float]()
    for name, column in zip(names, row[4:], strict=True):
        if isinstance(column, list) and len(column) == 2:
            column, weight = column
            weights[name] = parse_value(weight, float, f"samples.{id}.{name}", where)
            if weights[name] < 0:
                raise UserError(f"{where}: sample {printable(id)} counts {weights[name]:g} times by {printable(name)}")
        scores[name] = parse_value(column, float, f"samples.{id}.{name}", where)
    return kept_entry(id, cells[row[3]], document, digest, scores, weights)


def _layout(value: Any, depth: int = 0) -> str:
    """JSON with a line for each thing down to a score or a sample, which take one line."""
    if depth == 4 or not isinstance(value, dict | list) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = " " * (depth + 1)
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(name)}: {_layout(part, depth + 1)}" for name, part in value.items()]
    else:
        parts = [f"{inner}{_layout(part, depth + 1)}" for part in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(parts) + f"\n{' ' * depth}{closing}"
