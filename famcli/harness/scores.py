"""What the harness says of an answer, as numbers that famcli averages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from famcli.errors import UserError
from famcli.task import MetricSpec, Weighted


class Metrics(NamedTuple):
    """Of a task.

    Attributes:
        specs: those that are means over samples, the first of them the headline.
        left_out: names of those that are computed over all samples at once.
    """

    specs: tuple[MetricSpec, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """A metric of the harness after one of the task's filters.

    Attributes:
        name: what famcli calls it.
        metric, filter: what the harness calls both.
        kind: how the harness averages it: ``mean``, ``perplexity``, ``weighted_perplexity`` or ``bits_per_byte``.
        higher_is_better: direction.
    """

    name: str
    metric: str
    filter: str
    kind: str
    higher_is_better: bool

    @property
    def spec(self) -> MetricSpec:
        """As a task of famcli names it."""
        geometric = self.kind in ("perplexity", "weighted_perplexity")
        return MetricSpec(
            self.name, higher_is_better=self.higher_is_better, mean="geometric" if geometric else "arithmetic"
        )

    def value(self, found: Any) -> float | Weighted:
        """What the harness found for one sample, so that the mean over samples is the harness's."""
        if self.kind == "mean":
            return float(found)
        if self.kind == "perplexity":
            return math.exp(-float(found))
        likelihood, units = (float(number) for number in found)
        if self.kind == "bits_per_byte":
            return Weighted(-likelihood / units / math.log(2), units)
        return Weighted(math.exp(-likelihood / units), units)


def scores_of(task: Any, called: str) -> tuple[list[Score], tuple[str, ...]]:
    """The scores of a task of the harness, and the names of those that are no means.

    Raises:
        UserError: there are only such.
    """
    from lm_eval.api.metrics import bits_per_byte, mean, perplexity, weighted_perplexity

    kinds = {mean: "mean", perplexity: "perplexity", weighted_perplexity: "weighted_perplexity"}
    kinds[bits_per_byte] = "bits_per_byte"
    filters = [one.name for one in task._filters]
    better: Mapping[str, bool] = task.higher_is_better()
    scores, left_out = [], []
    for metric, aggregation in task.aggregation().items():
        if aggregation not in kinds:
            left_out.append(metric)
            continue
        for name in filters:
            shown = metric if len(filters) == 1 else f"{metric}_{name}"
            scores.append(Score(shown, metric, name, kinds[aggregation], bool(better.get(metric, True))))
    if not scores:
        raise UserError(
            f"{called} has no score that is a mean over its samples: {', '.join(left_out)}",
            "famcli compares models sample by sample",
        )
    return scores, tuple(left_out)


def scored(task: Any, scores: Sequence[Score], instances: Sequence[Any], answers: Sequence[Any]) -> dict[str, Any]:
    """The harness's scores of the answers to the requests of one document; its filters go first."""
    for instance, answer in zip(instances, answers, strict=True):
        instance.resps, instance.filtered_resps = [answer], {}
    for one in task._filters:
        one.apply(list(instances))
    found = {
        name: task.process_results(instances[0].doc, [instance.filtered_resps[name] for instance in instances])
        for name in dict.fromkeys(score.filter for score in scores)
    }
    return {score.name: score.value(found[score.filter][score.metric]) for score in scores}
