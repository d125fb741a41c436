"""From what a process says to the record of a model, at any moment: it may break off."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Literal

from famcli.display import format_bytes
from famcli.metrics.paired import LEVEL
from famcli.metrics.power_law import FEWEST, fit_power_law
from famcli.profiling.job import Job, Message
from famcli.profiling.record import Fit, LengthCost, ModelProfile, Spread, TrainingCost

Found = dict[int, list[Message]]


class Gathering:
    """The messages about one model.

    Attributes:
        failed: why its process broke off; ``None`` where it did not.
        done: it said all it had to say.
        training: what was found by ``training_peak``.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.failed: str | None = None
        self.done = False
        self.training: list[TrainingCost] = []
        self._opened: Message = {}
        self._rates: list[Message] = []
        self._lengths: Found = {}
        self._points: Found = {}
        self._work: dict[int, Message] = {}
        self._refused: dict[int, str] = {}
        self._stopped = False

    def hear(self, message: Message) -> None:
        """One message of the process."""
        kind, tokens = message["kind"], message.get("tokens", 0)
        if kind == "opened":
            self._opened = message
        elif kind == "rates":
            self._rates.append(message)
        elif kind == "point":
            self._points.setdefault(tokens, []).append(message)
        elif kind == "length":
            self._lengths.setdefault(tokens, []).append(message)
        elif kind == "work":
            self._work[tokens] = message
        elif kind == "refused":
            state, needs, free = (format_bytes(message[name]) for name in ("state", "needs", "free"))
            self._refused[tokens] = f"its state of {state} needs {needs} with the copies of it, and {free} are free"
        elif kind == "stopped":
            self._stopped = True
        elif kind == "failed":
            self.failed = message["why"]
        elif kind == "done":
            self.done = True

    def profile(self) -> ModelProfile:
        """What is known by now: a model that has neither ended nor failed was interrupted."""
        interrupted = not self.done and self.failed is None
        status: Literal["finished", "failed", "interrupted"] = "finished" if self.done else "failed"
        if interrupted:
            status = "interrupted"
        fit, no_fit = self._fit()
        opened = self._opened
        return ModelProfile(
            name=self.job.model,
            status=status,
            why="interrupted" if interrupted else self.failed,
            lengths=[self._cost(tokens, interrupted) for tokens in self.job.lengths],
            fit=fit,
            no_fit=no_fit,
            training=self.training,
            device=opened.get("device"),
            dtype=opened.get("dtype"),
            threads=opened.get("threads"),
            memory=opened.get("memory"),
            parameters=opened.get("parameters"),
            state_grows=opened.get("grows"),
            window=opened.get("window"),
            longest_text=opened.get("longest_text"),
            program_bytes=opened.get("program"),
            rest_bytes=opened.get("rest"),
            products_per_second=self._rate("products"),
            bytes_per_second=self._rate("bytes"),
        )

    def _rate(self, name: str) -> Spread | None:
        return spread(rate for message in self._rates for rate in message[name] or ())

    def _cost(self, tokens: int, interrupted: bool) -> LengthCost:
        if tokens in self._refused:
            return LengthCost(tokens, "refused", self._refused[tokens])
        if tokens not in self._lengths:
            long = f"its stream had been read for {self.job.seconds} seconds"
            why = long if self._stopped else "interrupted" if interrupted else self.failed
            return LengthCost(tokens, "not reached", why)
        found = self._lengths[tokens]
        along, own = self._seconds(tokens)
        seconds, computed = along + own, int(found[0]["computed"])
        decode = spread(step for message in found for step in message["decode"])
        work, products, moved = self._work.get(tokens, {}), self._rate("products_work"), self._rate("bytes")
        worked = sum(self._seconds(tokens, "_work"))
        operations, decoding = work.get("operations"), work.get("decoding_bytes")
        return LengthCost(
            tokens=tokens,
            status="measured",
            seconds=seconds,
            seconds_each=[point["along"] + point["own"] for point in self._points[tokens]],
            work_seconds=worked,
            computed_tokens=computed,
            tokens_per_second=computed / seconds,
            peak_memory_bytes=found[0]["peak"],
            state_bytes=found[0]["state"],
            decode=decode,
            operations=operations,
            product_share=operations / worked / products.median if operations and products else None,
            bandwidth_share=decoding / decode.median / moved.median if decoding and moved and decode else None,
        )

    def _seconds(self, tokens: int, clock: Literal["", "_work"] = "") -> tuple[float, float]:
        """Of the stream up to a point, and of the point's own part: medians of the streams."""
        return (
            statistics.median(point[f"along{clock}"] for point in self._points[tokens]),
            statistics.median(point[f"own{clock}"] for point in self._points[tokens]),
        )

    def _fit(self) -> tuple[Fit | None, str | None]:
        """The power law, or why there is none.

        Lengths that the model sees at once are left out where enough others are there: up to its window each block
        sees more than the one before, and only from there on does a memory of one size read at one cost.
        """
        points = sorted(self._points)
        beyond = [tokens for tokens in points if tokens >= (self._opened.get("window") or 0)]
        points = beyond if len(beyond) >= FEWEST else points
        fastest = self._fastest()
        pairs = [fastest[tokens] for tokens in points]
        law = fit_power_law(points, [along for along, _ in pairs], [own for _, own in pairs])
        if law is None:
            return None, f"a fit needs at least {FEWEST} lengths, and {len(points)} were reached"
        seconds = [along + own for along, own in pairs]
        return Fit(law.scale, law.exponent, law.low, law.high, LEVEL, points, seconds), None

    def _fastest(self) -> dict[int, tuple[float, float]]:
        """Seconds of work up to a point, and of its own part, by the fastest passage of each stretch.

        Whatever else a machine does only adds time.
        """
        found, along = dict[int, tuple[float, float]](), 0.0
        before = dict[int, float]()
        for tokens in sorted(self._points):
            reached = {point["repeat"]: point["along_work"] for point in self._points[tokens]}
            along += min(seconds - before.get(repeat, 0.0) for repeat, seconds in reached.items())
            found[tokens] = along, min(point["own_work"] for point in self._points[tokens])
            before = reached
        return found


def spread(values: Iterable[float]) -> Spread | None:
    """Median and quartiles; ``None`` of nothing."""
    found = sorted(values)
    if not found:
        return None
    low, median, high = statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
    return Spread(median, low, high, len(found))
