"""Answers that are drawn by chance: how, and several to one prompt."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from famcli.errors import UserError
from famcli.evaluation.record import SamplingFields
from famcli.task import Generated, MetricSpec

MOST_DRAWS = 1000


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        temperature: what log-likelihoods are divided by.
        top_p: only the likeliest tokens that together have this likelihood are drawn; 1 is all.
        draws: answers to each prompt, which is read once.

    Raises:
        UserError: a value does not fit.
    """

    temperature: float
    top_p: float = 1.0
    draws: int = 1

    def __post_init__(self) -> None:
        for name, value in (("temperature", self.temperature), ("top_p", self.top_p)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise UserError(f"the {name} must be a number, not {value!r}")
        if self.temperature <= 0:
            raise UserError(
                f"the temperature must be above 0, not {self.temperature:g}",
                "leave it out: then each token is the most likely one",
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be above 0 and at most 1, not {self.top_p:g}", "for example 0.9")
        if type(self.draws) is not int or not 1 <= self.draws <= MOST_DRAWS:
            raise UserError(f"draws must be a whole number from 1 to {MOST_DRAWS}, not {self.draws!r}", "for example 5")

    @property
    def fields(self) -> SamplingFields:
        """For the record."""
        return {"temperature": float(self.temperature), "top_p": float(self.top_p), "draws": self.draws}


def sampling_of(temperature: float | None, top_p: float | None, draws: int | None) -> Sampling | None:
    """What was typed; ``None`` takes the most likely token each time.

    Raises:
        UserError: a value does not fit, or one is given that says nothing without a temperature.
    """
    if temperature is not None:
        return Sampling(temperature, 1.0 if top_p is None else top_p, 1 if draws is None else draws)
    for name, value in (("top-p", top_p), ("draws", draws)):
        if value is not None:
            raise UserError(
                f"--{name} is given without a temperature: each token is the most likely one, and nothing is drawn",
                "for example: --temperature 0.7",
            )
    return None


class Drawer:
    """Draws the tokens of one answer. What it draws depends on the words of its seed and the scores alone."""

    def __init__(self, sampling: Sampling, *seed: object) -> None:
        self.sampling = sampling
        self._chance = random.Random(repr(seed))

    def pick(self, scores: NDArray[np.float64]) -> int:
        """A token, given the logits [v] of all."""
        likelihoods = np.exp((scores - scores.max()) / self.sampling.temperature)
        if self.sampling.top_p < 1:
            likelihoods = _nucleus(likelihoods, self.sampling.top_p)
        ends = np.cumsum(likelihoods)
        return int(np.searchsorted(ends, self._chance.random() * ends[-1], side="right"))


def _nucleus(likelihoods: NDArray[np.float64], top_p: float) -> NDArray[np.float64]:
    """Those of the fewest tokens, the likeliest first, of equals the lowest id, that have ``top_p`` of all; else 0."""
    order = np.argsort(-likelihoods, kind="stable")
    before = np.cumsum(likelihoods[order]) - likelihoods[order]
    kept = order[before < top_p * likelihoods.sum()]
    found = np.zeros_like(likelihoods)
    found[kept] = likelihoods[kept]
    return found


@dataclass(frozen=True)
class Drawing:
    """What a run draws.

    Attributes:
        sampling: how.
        seed: of the run.
        rows: most answers that grow together.
    """

    sampling: Sampling
    seed: int
    rows: int

    def drawers(self, sample: str) -> list[Drawer]:
        """One for each answer to the sample of this id."""
        return [Drawer(self.sampling, self.seed, sample, number) for number in range(self.sampling.draws)]


class Drawn(NamedTuple):
    """Several answers to one prompt."""

    answers: tuple[Generated, ...]


Scored = tuple[Mapping[str, float], Mapping[str, float]]
"""Scores, and the weights that are not 1."""


def mean_scores(metrics: Sequence[MetricSpec], found: Sequence[Scored]) -> tuple[dict[str, float], dict[str, float]]:
    """The means of the scores of several answers, by their weights, and the mean weights that are not 1."""
    scores, weights = {}, {}
    for spec in metrics:
        own = [weighted.get(spec.name, 1.0) for _, weighted in found]
        total = math.fsum(own)
        if own != [1.0] * len(own):
            weights[spec.name] = total / len(own)
        values = [one[spec.name] for one, _ in found]
        counted = [(value, weight) for value, weight in zip(values, own, strict=True) if weight]
        if not counted:
            scores[spec.name] = values[0]
        elif spec.mean == "geometric":
            scores[spec.name] = math.exp(math.fsum(weight * math.log(value) for value, weight in counted) / total)
        else:
            scores[spec.name] = math.fsum(weight * value for value, weight in counted) / total
    return scores, weights
