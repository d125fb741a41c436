"""``--task lm_eval:NAME``: a task of lm-evaluation-harness; prompts, examples and scores are the harness's own."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from famcli.errors import UserError
from famcli.files import content_sha256, user_path
from famcli.harness.headers import with_headers
from famcli.harness.loading import FIRST, SAMPLERS, Rows, examples_apart, find_file, harness, make, take_first
from famcli.harness.requests import answered, asked
from famcli.harness.rows import ENDINGS, read_rows
from famcli.harness.scores import Score, scored, scores_of
from famcli.task import Encoder, MetricSpec, Request, Sample, Scores, Task, option

logger = logging.getLogger(__name__)

HUB = "hub"
_PLACE = re.compile(r" at 0x[0-9a-f]+")
"""Where a function stands in memory, in its description."""


def _count(text: str) -> int | None:
    """What ``-o`` gives; a ``ValueError`` ends the sentence "option 'num_fewshot' must be ..."."""
    if text in ("", "none"):
        return None
    if not text.isdecimal() or len(text) > 4:
        raise ValueError("a whole number of at most 9999, or none")
    return int(text)


def _sampler(text: str) -> str:
    if text not in SAMPLERS:
        raise ValueError(f"one of {', '.join(SAMPLERS)}")
    return text


def _seed(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise ValueError("a whole number")
    return int(text)


@dataclass(frozen=True)
class HarnessOptions:
    """The options of every task of the harness."""

    data: str = option("", "FILE.jsonl or FILE.jsonl.gz of rows as on the hub; a folder of such; hub (downloads)", str)
    num_fewshot: int | None = option("none", "examples in a prompt; none: as many as the task says", _count)
    fewshot_data: str = option("", "FILE with the rows that examples are taken from", str)
    fewshot_seed: int = option("1234", "of what examples are drawn", _seed)
    fewshot_sampler: str = option(
        SAMPLERS[0],
        "task: as the task says, in most tasks others in each prompt; first_n: the first rows in all, read once",
        _sampler,
        added=True,
    )


class HarnessTask(Task):
    """A task of the harness; what it is made of is known once its rows are there.

    Attributes:
        file: where the harness has it.
    """

    version = 1
    summary = "a task of lm-evaluation-harness"
    Options = HarnessOptions
    options: HarnessOptions
    file: ClassVar[Path]

    @cached_property
    def theirs(self) -> Any:
        """The harness's own task, on the rows.

        Raises:
            UserError: there are no rows, they do not fit, or it is a task that famcli does not run.
        """
        with harness(self.name):
            task = make(self.file, self._rows)
            if self._examples is not None:
                task = make(self.file, self._rows, {self._split_of_examples(task): self._examples})
            if self.options.num_fewshot is not None:
                task.set_config(key="num_fewshot", value=self.options.num_fewshot)
            self._check(task)
            if self.options.fewshot_sampler == FIRST:
                take_first(task, self.name)
        return task

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:  # type: ignore[override]  # what a class cannot know
        """See ``Task``."""
        return tuple(score.spec for score in self._scores[0])

    @property
    def template(self) -> str:  # type: ignore[override]
        """The harness's version, and all that it says of the task, the source of functions included."""
        import lm_eval

        with harness(self.name):
            said = self.theirs.dump_config()
        said.pop("metadata", None)
        version = getattr(lm_eval, "__version__", "")
        text = json.dumps([version, str(self.theirs.VERSION), said], sort_keys=True, default=_source)
        return _PLACE.sub("", text)

    def recorded_options(self) -> dict[str, Any]:
        """See ``Task``; examples go by what they are, not by where they lie."""
        said = super().recorded_options()
        if self.options.fewshot_data:
            file = user_path(self.options.fewshot_data)
            said["fewshot_data"] = f"{file.name} {content_sha256(file)[:16]}"
        return said

    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """See ``Task.samples``: the rows in their order, a limit takes the first, as in the harness."""
        scores, left_out = self._scores
        if left_out:
            logger.warning(
                "warning: task %s: %s: computed over all samples at once, and left out", self.name, ", ".join(left_out)
            )
        with harness(self.name):
            self.theirs.set_fewshot_seed(seed=self.options.fewshot_seed)  # each time: what is drawn goes on otherwise
            return with_headers([self._sample(number, doc, scores) for number, doc in self._documents(limit)])

    def provenance(self) -> Mapping[str, Any] | None:
        """See ``Task.provenance``."""
        if self._rows is not None:
            return {
                "source": "path",
                "name": self._file.name,
                "revision": None,
                "sha256": content_sha256(self._file),
                "rows": len(self._rows),
            }
        rows = json.dumps([dict(doc) for doc in self.theirs.eval_docs], sort_keys=True, default=str)
        return {
            "source": HUB,
            "name": str(self.theirs.DATASET_PATH),
            "revision": None,
            "sha256": hashlib.sha256(rows.encode()).hexdigest(),
            "rows": len(self.theirs.eval_docs),
        }

    def fetch(self, split: str | None) -> Mapping[str, Any]:
        """See ``Task.fetch``: the harness downloads its data sets itself."""
        raise UserError(
            f"famcli stores no data sets of lm-evaluation-harness, of which {self.name} is a task",
            f"famcli eval --task {self.name} --data {HUB} downloads it when it runs",
        )

    @cached_property
    def _file(self) -> Path:
        """Of the rows; in a directory, the one that is called as the task is."""
        path = user_path(self.options.data)
        if not path.is_dir():
            return path
        name = self.name.partition(":")[2]
        wanted = [path / f"{name}{ending}" for ending in ENDINGS]
        there = [file for file in wanted if file.exists()]
        if len(there) != 1:
            names = " nor ".join(file.name for file in wanted)
            found = "more than one file of its rows" if there else f"neither {names}"
            raise UserError(
                f"task {self.name}: {path} holds {found}",
                "keep one of them" if there else f"--data {self.name}=FILE.jsonl.gz names another file",
            )
        return there[0]

    @cached_property
    def _rows(self) -> Rows | None:
        """Of the user's file; ``None`` for the hub's."""
        if not self.options.data:
            raise UserError(
                f"task {self.name} needs data: rows in the schema that it has on the hub",
                f"--data FILE.jsonl.gz, or --data {HUB} to download them",
            )
        return None if self.options.data == HUB else read_rows(self._file)

    @cached_property
    def _examples(self) -> Rows | None:
        if not self.options.fewshot_data:
            return None
        if self._rows is None:
            raise UserError(
                f"task {self.name}: the data is the hub's, and fewshot_data is given", "leave one of them out"
            )
        return read_rows(user_path(self.options.fewshot_data))

    @cached_property
    def _scores(self) -> tuple[list[Score], tuple[str, ...]]:
        with harness(self.name):
            return scores_of(self.theirs, f"task {self.name}")

    def _check(self, task: Any) -> None:
        """Raises ``UserError`` for a task that famcli does not run, or whose examples would be what is evaluated."""
        for wrong, words in (
            ("MULTIMODAL", "shows pictures or sounds"),
            ("UNSAFE_CODE", "runs code that a model wrote"),
        ):
            if getattr(task, wrong, False):
                raise UserError(f"task {self.name} {words}, which famcli does not do", "leave this task out")
        split, count = examples_apart(task), task.config.num_fewshot
        if self._rows is not None and count and split and self._examples is None:
            raise UserError(
                f"task {self.name} takes {count} examples from the split '{split}', of which there is no data",
                "give them: -o fewshot_data=FILE.jsonl.gz; or none: -o num_fewshot=0",
            )

    def _split_of_examples(self, task: Any) -> str:
        """Raises ``UserError`` where the task takes its examples from what it evaluates, or has its own."""
        if split := examples_apart(task):
            return split
        raise UserError(f"task {self.name} has no split of examples, and fewshot_data is given", "leave it out")

    def _documents(self, limit: int | None) -> list[tuple[int, Any]]:
        return list(self.theirs.doc_iterator(limit=limit))

    def _sample(self, number: int, doc: Any, scores: list[Score]) -> Sample:
        task, where = self.theirs, f"task {self.name}: row {number}"
        context = task.fewshot_context(
            doc, num_fewshot=task.config.num_fewshot or 0, gen_prefix=task.doc_to_prefix(doc)
        )
        instances = task.construct_requests(doc=doc, ctx=context, metadata=(task.config.task, number, 1))
        instances = instances if isinstance(instances, list) else [instances]
        request = asked(instances, where)

        def score(answer: Any) -> Scores:
            return scored(task, scores, instances, answered(request, answer))

        return Sample(str(number), {}, _reference(task, doc), _given(request), score)


def find(name: str) -> type[Task]:
    """lm_eval:NAME: any task of lm-evaluation-harness, with --data FILE.jsonl.gz or --data hub; see docs/harness.md

    Raises:
        UserError: the harness is not installed, or has no such task.
    """
    called = f"lm_eval:{name}"
    with harness(called):
        file = find_file(name, called)
    return type("HarnessTask", (HarnessTask,), {"name": called, "file": file, "__module__": __name__})


def _given(request: Request) -> Callable[[], Request]:
    return partial(_same, request)


def _same(request: Request) -> Request:
    return request


def _reference(task: Any, doc: Any) -> str:
    """The right answer, of several options its text."""
    target = task.doc_to_target(doc)
    if getattr(task, "multiple_input", 0):  # the choices are what stands before one and the same answer
        return f"{task.doc_to_choice(doc)[task.doc_to_text(doc)]} {target}"
    choices = task.doc_to_choice(doc) if getattr(task.config, "doc_to_choice", None) is not None else None
    targets = target if isinstance(target, list) else [target]
    known: list[Any] = list(choices or ())
    texts = [known[one] if isinstance(one, int) and 0 <= one < len(known) else one for one in targets]
    return " | ".join(str(text).strip() for text in texts)


def _source(value: Any) -> str:
    """What stands for a function in a description: its source."""
    import inspect

    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        return repr(type(value))
