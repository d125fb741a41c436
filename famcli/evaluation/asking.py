"""Calls what a task brings, code of others, and names the task, the sample and the line where it fails."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from famcli.errors import UserError, printable
from famcli.fields import LARGEST
from famcli.loading import own_place
from famcli.task import Choose, DataError, Encoder, Generate, Prompt, Read, Request, Sample, Scores, Task, Weighted

OnError = Literal["stop", "skip"]
ROLES = ("system", "user", "assistant")
_LONGEST_REASON = 400


class SampleError(UserError):
    """A task failed on one sample: it could not say what to ask, or how the answer is scored.

    Attributes:
        sample: its id.
    """

    def __init__(self, message: str, sample: str) -> None:
        super().__init__(message, "--on-error skip goes on without such samples, and counts them")
        self.sample = sample


@dataclass(frozen=True)
class Limits:
    """Most samples and most documents of a task; ``None`` is all.

    Both together: of the samples that the one leaves, those of the first documents.
    """

    samples: int | None = None
    documents: int | None = None


@dataclass
class Skips:
    """What is done with samples that a task fails on.

    Attributes:
        on_error: ``stop`` at the first, or ``skip`` them all.
        tell: called with a message for each that is skipped.
        reasons: why, by the ids of those that were skipped.
    """

    on_error: OnError = "stop"
    tell: Callable[[str], None] = lambda message: None
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, error: SampleError) -> None:
        """Raises the error, or notes it."""
        if self.on_error == "stop":
            raise error
        if error.sample not in self.reasons:
            self.reasons[error.sample] = error.message
            self.tell(f"sample {error.sample} is skipped: {error.message}")

    def all_failed(self, task: Task) -> UserError:
        """The error where no sample is left."""
        reason = next(iter(self.reasons.values()), "")
        return UserError(f"task {task.name} failed on all of its {len(self.reasons)} samples, for instance: {reason}")


def samples_of(task: Task, tokenizer: Encoder, seed: int, limits: Limits, *, may_be_none: bool = False) -> list[Sample]:
    """The task's samples, checked.

    Args:
        task: the task.
        tokenizer: see ``Task.samples``, as for ``seed``.
        seed: see there.
        limits: how many to take.
        may_be_none: a task without samples is no error.

    Raises:
        UserError: the task fails, gives none, or gives what is no sample.
    """
    samples = _drawn(task, tokenizer, seed, limits.samples)
    if not samples and not may_be_none:
        raise UserError(
            f"task {task.name} gives no samples with these options", "famcli list tasks says what each option does"
        )
    documents = list(dict.fromkeys(map(_document, samples)))
    if limits.documents is None or len(documents) <= limits.documents:
        return samples
    if len(documents) == len(samples):
        # Asked for so many, the task itself knows how to take evenly, and what each then counts in a mean.
        return _drawn(task, tokenizer, seed, limits.documents)
    taken = set(documents[: limits.documents])
    return [sample for sample in samples if _document(sample) in taken]


def _document(sample: Sample) -> tuple[str | None, str]:
    """The same for samples about one document; a sample that stands by itself is a document of its own."""
    return (None, sample.id) if sample.document is None else (sample.document, "")


def _drawn(task: Task, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
    """The task's samples; raises ``UserError`` where they are none, see ``samples_of``."""
    with named(task, f"task {task.name}: its samples cannot be had", function=task.samples):
        try:
            samples = task.samples(tokenizer, seed, limit)
            if not isinstance(samples, list):
                samples = list(samples)
        except DataError as error:
            if error.hint is None and type(task).__module__.startswith("famcli."):
                error.hint = f"rows that fit: famcli data schema {task.name}"
            raise
    for number, sample in enumerate(samples, 1):
        if problem := _problem(sample):
            name = getattr(sample, "id", None)
            called = printable(str(name)) if name else number
            raise UserError(f"task {task.name}: sample {called} {problem}{_place(task.samples)}", _whose(task))
    if len({sample.id for sample in samples}) < len(samples):
        raise UserError(f"task {task.name} gives two samples the same id{_place(task.samples)}", _whose(task))
    return samples


def _problem(sample: Any) -> str | None:
    if not isinstance(sample, Sample):
        return f"is a {type(sample).__name__}, not a famcli.task.Sample"
    if not (isinstance(sample.id, str) and sample.id and isinstance(sample.reference, str)):
        return "needs text as its id and reference"
    if not (sample.document is None or isinstance(sample.document, str)):
        return "needs text as the name of its document, or None"
    if not (sample.header is None or (isinstance(sample.header, str) and sample.header)):
        return "needs text as the name of its header, or None"
    if sample.header and sample.document is not None:
        return "names a document and a header, and can share the reading of one alone"
    if not (sample.prompt_tokens is None or (type(sample.prompt_tokens) is int and sample.prompt_tokens > 0)):
        return f"has {sample.prompt_tokens!r} as its prompt_tokens, not a whole number"
    for name, values in (("cell", sample.cell), ("details", sample.details)):
        if not isinstance(values, Mapping):
            return f"has a {type(values).__name__} as its {name}, not a mapping"
        for key, value in values.items():
            if not isinstance(key, str) or type(value) not in (str, int, float, bool):
                return f"has a {type(value).__name__} in its {name} as {key!r}, not text or a number of Python's own"
            if isinstance(value, float) and not math.isfinite(value):
                return f"has {value} in its {name} as {key!r}"
    return None


def request_of(task: Task, sample: Sample) -> Request:
    """What a sample asks.

    Raises:
        SampleError: the task fails, or it is no request.
    """
    with named(task, f"task {task.name}: what sample {sample.id} asks cannot be had", sample, sample.request):
        request = sample.request()
        if problem := _wrong_request(request):
            raise SampleError(f"task {task.name}: sample {sample.id} {problem}{_place(sample.request)}", sample.id)
    return request


def ask_or_skip(task: Task, skips: Skips, sample: Sample) -> Request | None:
    """What a sample asks; ``None`` where the task fails on it, and it is skipped."""
    try:
        return request_of(task, sample)
    except SampleError as error:
        skips.add(error)
        return None


def _wrong_request(request: Any) -> str | None:
    if isinstance(request, Read):
        return None if isinstance(request.text, str) else f"has a text that is a {type(request.text).__name__}"
    if not isinstance(request, Generate | Choose):
        return f"asks by a {type(request).__name__}, not by Generate, Choose or Read"
    prompt = request.prompt
    if not isinstance(prompt, Prompt) or not isinstance(prompt.segments, tuple | list):
        return "has a prompt that is no famcli.task.Prompt of segments"
    for segment in prompt.segments:
        if not isinstance(segment, str) and not (isinstance(segment, np.ndarray) and segment.dtype.kind in "iu"):
            return f"has a segment that is a {type(segment).__name__}, not text or an array of token ids"
    if prompt.document is not None and prompt.document not in range(len(prompt.segments)):
        return f"has {prompt.document!r} as its document, and {len(prompt.segments)} segments"
    if prompt.messages and (problem := _wrong_chat(prompt)):
        return problem
    if isinstance(request, Choose):
        texts = isinstance(request.options, tuple | list) and all(isinstance(one, str) for one in request.options)
        if request.given and len(request.given) != len(request.options):
            return f"has {len(request.options)} options, and texts before {len(request.given)} of them"
        return None if texts and all(isinstance(one, str) for one in request.given) else "needs texts as its options"
    if type(request.max_new_tokens) is not int or request.max_new_tokens < 1:
        return f"has {request.max_new_tokens!r} as its max_new_tokens, not a whole number of at least 1"
    return None if all(isinstance(one, str) for one in request.stop) else "needs texts as its stop strings"


def _wrong_chat(prompt: Prompt) -> str | None:
    if prompt.document is not None:
        return "has messages of a chat and a document, which a chat lacks"
    for role, segment in prompt.messages:
        if role not in ROLES:
            return f"has a message of {role!r}, who is none of {', '.join(ROLES)}"
        if segment not in range(len(prompt.segments)) or not isinstance(prompt.segments[segment], str):
            return f"has {segment!r} as the segment of a message, which is none of its texts"
    return None if prompt.messages[-1].role == "user" else "has a chat that does not end with a message of the user"


def scores_of(task: Task, sample: Sample, answer: Any) -> tuple[dict[str, float], dict[str, float]]:
    """An answer's value for each metric of the task, and the weights that are not 1.

    Raises:
        SampleError: the task fails, or gives anything but a finite number for each of its metrics.
    """
    with named(task, f"task {task.name}: sample {sample.id} cannot be scored", sample, sample.score):
        given = sample.score(answer)
        pairs = _pairs(given)
    metrics = {metric.name for metric in task.metrics}
    if pairs is None or pairs.keys() != metrics:
        wants = f"not a number for each metric: {', '.join(sorted(metrics))}"
        message = f"task {task.name}: sample {sample.id} is scored {printable(repr(given))}, {wants}"
        raise SampleError(message + _place(sample.score), sample.id)
    for name, pair in pairs.items():
        if "accuracy" in name.split("_") and not 0 <= pair.value <= 1:
            message = (
                f"task {task.name}: sample {sample.id} is scored {pair.value:g} by {name}, which is a share from 0 to "
                "1: a score of another scale needs another name"
            )
            raise SampleError(message + _place(sample.score), sample.id)
    weights = {name: float(pair.weight) for name, pair in pairs.items() if pair.weight != 1}
    return {name: float(pair.value) for name, pair in pairs.items()}, weights


def _pairs(given: Scores) -> dict[str, Weighted] | None:
    """Values with their weights; ``None`` where they are not that."""
    if not isinstance(given, Mapping):
        return None
    pairs = {}
    for name, value in given.items():
        pair = value if isinstance(value, Weighted) else Weighted(value, 1.0)
        if not all(isinstance(number, int | float | np.number | np.bool_) for number in pair):
            return None
        if not all(-LARGEST <= number <= LARGEST for number in pair) or pair.weight < 0:
            return None
        pairs[name] = pair
    return pairs


@contextmanager
def named(task: Task, what: str, sample: Sample | None = None, function: Any = None) -> Iterator[None]:
    """Turns what code of others raises into an error that names the line.

    Args:
        task: whose code runs.
        what: what cannot be had.
        sample: of which.
        function: what is called, whose beginning is named where it does not come to run.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        message = f"{what}: {type(error).__name__}: {printable(str(error), _LONGEST_REASON)}"
        message += _raised(error, task) or _place(function)
        if sample is not None:
            raise SampleError(message, sample.id) from error
        raise UserError(message, _whose(task)) from error


def _file(task: Task) -> Path | None:
    file = getattr(sys.modules.get(type(task).__module__), "__file__", None)
    return Path(file) if file else None


def _whose(task: Task) -> str:
    file = _file(task)
    return f"it comes from {file or type(task).__module__}, not from famcli: mend it and repeat the command"


def _raised(error: BaseException, task: Task) -> str:
    """`` (FILE:LINE)`` of the innermost line that is the task's own."""
    file = _file(task)
    place = own_place(error, file) if file else None
    return f" ({place[0]}:{place[1]})" if place else ""


def _place(function: Any) -> str:
    """`` (FILE:LINE)`` where a function begins, if that is known; of an object that is called, where it says how."""
    while hasattr(function, "func"):
        function = function.func
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None) or getattr(vars(type(function)).get("__call__"), "__code__", None)
    return f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
