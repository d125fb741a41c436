"""What a profile holds, as ``profile.json`` keeps it. Times are in seconds, memory in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from famcli.errors import UserError
from famcli.fields import read_fields, read_json

FORMAT = "famcli profile 1"
FILE = "profile.json"

Standing = Literal["measured", "refused", "not reached"]


@dataclass(frozen=True)
class Spread:
    """Repeated measurements.

    Attributes:
        median: of them.
        low, high: the quartiles.
        count: how many there were.
    """

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class LengthCost:
    """What reading a text of one length costs, from its first token until the token after it can be predicted.

    Attributes:
        tokens: the length.
        status: ``refused`` where its state would not have fitted into free memory; ``not reached`` where the model
            broke off, was interrupted or took too long before; ``measured`` otherwise, and only then there are figures.
        why: it is not ``measured``.
        seconds: median of the streams that were read.
        seconds_each: of each of them.
        work_seconds: as ``seconds``, of work: on a processor those that the process had of it, on all its threads;
            elsewhere the same seconds.
        computed_tokens: those that the model computed: it may skip what cannot reach any answer.
        tokens_per_second: of computed tokens.
        peak_memory_bytes: most memory until then, of the first stream: allocated on a CUDA device, elsewhere the
            resident set of the process, program and weights included; where the state does not grow there is one copy
            of it more.
        state_bytes: of one stream.
        decode: seconds of reading one token more, and predicting the next.
        operations: floating point operations of matrix products in reading; ``None`` where the memory does not say.
        product_share: of the rate of matrix products that was measured, how much reading had, both by seconds of work.
        bandwidth_share: of the bytes a second that were measured, how many ``decode`` had to move at least.
    """

    tokens: int
    status: Standing
    why: str | None = None
    seconds: float | None = None
    seconds_each: list[float] | None = None
    work_seconds: float | None = None
    computed_tokens: int | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    state_bytes: int | None = None
    decode: Spread | None = None
    operations: int | None = None
    product_share: float | None = None
    bandwidth_share: float | None = None


@dataclass(frozen=True)
class Fit:
    """``seconds of work = scale x tokens^exponent``, see ``work_seconds`` of ``LengthCost``.

    Attributes:
        scale, exponent: the power law.
        low, high: interval of the exponent, see ``famcli.metrics.power_law``.
        level: of the interval.
        points: lengths that were fitted, in tokens; those that were asked for are among them.
        seconds: of the points, in their order: of every stretch between two the fastest of the streams.
    """

    scale: float
    exponent: float
    low: float
    high: float
    level: float
    points: list[int]
    seconds: list[float]


@dataclass(frozen=True)
class TrainingCost:
    """Forward and backward over so many blocks of one row.

    Attributes:
        blocks: through which gradients flow back.
        peak_memory_bytes: as in ``LengthCost``; ``None`` where it could not be measured.
        why: it could not.
    """

    blocks: int
    peak_memory_bytes: int | None
    why: str | None = None


@dataclass(frozen=True)
class ModelProfile:
    """One model.

    Attributes:
        name: the spec as it was typed.
        status: ``failed`` where its process broke off.
        why: it is not ``finished``.
        lengths: in rising order.
        fit: ``None`` where ``no_fit`` says why.
        training: by blocks, where it was asked for.
        device, dtype, threads: where the model was, what its weights were, and threads of the processor.
        memory: what passes from block to block, in a few characters; ``None`` for models of other packages.
        parameters: number of weights.
        state_grows: with the text.
        window: most tokens of the text that a layer sees at once; ``None`` where there is no bound.
        longest_text: tokens it was made to read at most; ``None`` where any number will do.
        program_bytes: of ``peak_memory_bytes`` those that the process had before the model was opened.
        rest_bytes: the same with the model, before the first token.
        products_per_second: floating point operations of a matrix product as the model's feed-forward has them.
        bytes_per_second: of a copy in memory, read and written ones.
    """

    name: str
    status: Literal["finished", "failed", "interrupted"]
    why: str | None
    lengths: list[LengthCost]
    fit: Fit | None
    no_fit: str | None
    training: list[TrainingCost]
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    memory: str | None = None
    parameters: int | None = None
    state_grows: bool | None = None
    window: int | None = None
    longest_text: int | None = None
    program_bytes: int | None = None
    rest_bytes: int | None = None
    products_per_second: Spread | None = None
    bytes_per_second: Spread | None = None

    @property
    def measured(self) -> list[LengthCost]:
        """The lengths that have figures."""
        return [cost for cost in self.lengths if cost.status == "measured"]

    @property
    def settled(self) -> list[LengthCost]:
        """Those of them that fill the window, if there are two: up to there a memory of one size is being filled."""
        beyond = [cost for cost in self.measured if cost.tokens >= (self.window or 0)]
        return beyond if len(beyond) > 1 else self.measured


@dataclass(frozen=True)
class Profile:
    """What one command measured.

    Attributes:
        famcli: version.
        started: UTC, ISO 8601.
        text: what was read, in words.
        repeat: streams that were read of each model.
        models: in the order they were given.
    """

    famcli: str
    started: str
    text: str
    repeat: int
    models: list[ModelProfile]

    def __post_init__(self) -> None:
        for model in self.models:
            for cost in model.lengths:
                figures = (cost.seconds, cost.tokens_per_second, cost.computed_tokens, cost.decode)
                sizes = (cost.peak_memory_bytes, cost.state_bytes)
                if cost.tokens < 1 or (cost.status == "measured" and None in (*figures, *sizes)):
                    raise UserError(f"{model.name}: the length of {cost.tokens} tokens lacks figures")


def load_profile(path: Path) -> Profile:
    """What ``famcli profile --output`` wrote.

    Args:
        path: the directory, or ``profile.json`` itself.

    Raises:
        UserError: it is not there, or is none.
    """
    file = path / FILE if path.is_dir() else path
    found = read_json(file, hint="make one with: famcli profile --model fam-tiny --output DIR")
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{file} is no profile of famcli", f"its field 'format' must be {FORMAT}")
    return read_fields(Profile, found, str(file), others=True)
