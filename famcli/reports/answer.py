"""The answer in words: to what length each model remembers, and what that cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from famcli.compare.answer import Answer, best
from famcli.compare.cells import LENGTH, format_amount
from famcli.compare.comparison import Column, Comparison
from famcli.compare.recall import Measured, Recall
from famcli.compare.row import Row
from famcli.display import format_bytes
from famcli.reports.numbers import field_of, format_number, format_p, format_paired, format_score, short
from famcli.reports.remembered import MOST_MODELS, SECONDS, in_tables


def answer_lines(comparison: Comparison) -> list[str]:
    """``spoken`` and ``meanings``; none where nobody worked the answer out."""
    answer = comparison.answer
    return [] if answer is None else [*spoken(comparison, answer), *meanings(comparison, answer)]


def spoken(comparison: Comparison, answer: Answer) -> list[str]:
    """``sentences`` without what ``famcli.reports.remembered.answer_grids`` tells in their place."""
    return _headlines(comparison, answer) if in_tables(answer) else sentences(comparison, answer)


def sentences(comparison: Comparison, answer: Answer) -> list[str]:
    """What each model remembers, a sentence a model and task, and the headline of each other task.

    Nothing is said of what was not measured.
    """
    columns = {column.name: column for column in comparison.columns}
    families: dict[tuple[str, str], list[Recall]] = {}
    for recall in answer.recalls:
        families.setdefault((recall.family, recall.column), []).append(recall)
    told = [_recalls(found, columns[column]) for (_, column), found in families.items()]
    return [*told, *_headlines(comparison, answer)]


def _headlines(comparison: Comparison, answer: Answer) -> list[str]:
    return [_headline(row, comparison.baseline) for row in answer.headlines]


def meanings(comparison: Comparison, answer: Answer) -> list[str]:
    """What the words of ``sentences`` mean."""
    found = []
    if answer.recalls:
        metrics = " or ".join(sorted({recall.metric for recall in answer.recalls}))
        axes = sorted({recall.axis for recall in answer.recalls}, key=lambda axis: (axis != LENGTH, axis))
        what = " or to ".join("a length" if axis == LENGTH else f"a number of {axis}" for axis in axes)
        less = (
            "shorter length" if axes == [LENGTH] else "smaller one" if LENGTH not in axes else "shorter or smaller one"
        )
        share = "its share of the time its batch took"
        where = f"{SECONDS} and state: there, or at the shortest where none is; a sample has {share}"
        found.append(
            f"remembers to {what}: {metrics} is {answer.held:g} or more there and at every {less} measured "
            f"(--held); {where if in_tables(answer) else f's a sample: {share}'}"
        )
    if comparison.baseline is None and any(len(row.scores) > 1 for row in answer.headlines):
        found.append("whether the highest is so by more than chance: --baseline MODEL tells")
    return found


def answer_values(comparison: Comparison) -> dict[str, Any] | None:
    """The answer for programs; ``remembers_to`` is ``None`` where the shortest length measured does not hold.

    ``held``; ``sentences``; ``recalls``, one a kind of text and model: ``task``, ``metric``, ``settings``, ``model``,
    ``axis``, ``remembers_to`` and ``longest_measured`` in tokens, or in what ``axis`` counts where it is not
    ``length``, ``points`` (see ``famcli.compare.recall.Measured``);
    ``headlines``, one a task that is not measured by length: ``task``, ``metric``, ``best`` models, and by model the
    ``verdicts`` against the baseline.
    """
    answer = comparison.answer
    if answer is None:
        return None
    return {
        "held": answer.held,
        "sentences": sentences(comparison, answer),
        "recalls": [
            {
                "task": recall.task,
                "metric": recall.metric,
                "settings": recall.settings,
                "model": recall.column,
                "axis": recall.axis,
                "remembers_to": recall.longest.length if recall.longest else None,
                "longest_measured": recall.points[-1].length,
                "points": [asdict(point) for point in recall.points],
            }
            for recall in answer.recalls
        ],
        "headlines": [
            {
                "task": row.task,
                "metric": row.metric,
                "best": best(row),
                "verdicts": {column: found.verdict for column, found in row.differences.items()},
            }
            for row in answer.headlines
        ],
    }


def answer_figures(recall: Recall) -> dict[str, float]:
    """The answer as numbers for CSV: 0 tokens where the shortest length measured does not hold."""
    return {
        "answer.remembers_to": recall.longest.length if recall.longest else 0,
        "answer.longest_measured": recall.points[-1].length,
        "answer.held": recall.held,
    }


def _recalls(recalls: Sequence[Recall], column: Column) -> str:
    """What a model remembers of the texts of one task."""
    field = field_of(column)
    words = f"receptive field {field}" if column.receptive_field is not None else field
    who = column.title + f" ({words})" * (words != "unbounded")
    if len(recalls) == 1:
        return f"{recalls[0].kind}: {who} {_how_far(recalls[0])}"
    outcomes: dict[str, dict[str, list[str]]] = {}
    ordered = sorted(recalls, key=_furthest, reverse=True)
    for recall in ordered:
        shown = recall.longest or recall.points[0]
        outcomes.setdefault(_outcome(recall), {}).setdefault(_count(shown), []).append(recall.place)
    parts = []
    for outcome, counts in outcomes.items():
        where = "; ".join(f"{', '.join(places)}: {count}" for count, places in counts.items())
        parts.append(f"{outcome} ({where})")
    longest = ordered[0].longest
    cost = f"; {_place(ordered[0], longest)}{_cost(longest)[1:]}" if longest and _cost(longest) else ""
    verb = "remembers" if longest else "does not remember"
    return f"{recalls[0].family}: {who} {verb} {'; '.join(parts)}{cost}".replace("remember not at", "remember at")


def _furthest(recall: Recall) -> tuple[int, bool]:
    return (recall.longest.length if recall.longest else 0), recall.broken is None


def _outcome(recall: Recall) -> str:
    """``to 1k tokens, not at 4k``."""
    longest, broken = recall.longest, recall.broken
    if longest is None:
        return f"not at {_place(recall, recall.points[0])}"
    if broken is None:
        return f"to at least {_place(recall, longest)}"
    return f"to {_place(recall, longest)}, not at {format_amount(recall.axis, broken.length)}"


def _how_far(recall: Recall) -> str:
    longest, broken = recall.longest, recall.broken
    if longest is None:
        first = recall.points[0]
        only = _only(recall, "the shortest measured", "the fewest measured")
        return f"does not remember at {_place(recall, first)}, {only}: {_score(first)}{_cost(first)}"
    if broken is None:
        only = _only(recall, "the longest measured", "the most measured")
        return f"remembers to at least {_place(recall, longest)}, {only}: {_score(longest)}{_cost(longest)}"
    return (
        f"remembers to {_place(recall, longest)}: {_score(longest)}{_cost(longest)}; "
        f"not at {format_amount(recall.axis, broken.length)}: {_score(broken)}"
    )


def _place(recall: Recall, point: Measured) -> str:
    return format_amount(recall.axis, point.length) + " tokens" * (recall.axis == LENGTH)


def _only(recall: Recall, of_lengths: str, of_amounts: str) -> str:
    if len(recall.points) == 1:
        return "the only length measured" if recall.axis == LENGTH else "the only number measured"
    return of_lengths if recall.axis == LENGTH else of_amounts


def _score(point: Measured) -> str:
    """``1.000 [0.839, 1.000], 20 of 20``."""
    return f"{format_score(point.score, point.interval, point.too_few)}, {_count(point)}"


def _count(point: Measured) -> str:
    """``20 of 20``."""
    n = point.score.n
    return f"n={n}" if point.right is None else f"{point.right} of {n}"


def _cost(point: Measured) -> str:
    if point.seconds is None or point.state_bytes is None:
        return ""
    return f", in {short(point.seconds)} s a sample, state {format_bytes(point.state_bytes)}"


def _headline(row: Row, baseline: str | None) -> str:
    return f"{row.task} {row.metric}: {_best(row)}{_told_apart(row, baseline)}"


def _best(row: Row) -> str:
    leading = best(row)
    score = row.scores[leading[0]]
    words = f"{format_score(score, row.intervals.get(leading[0]), leading[0] in row.too_few)}, n={score.n}"
    if len(row.scores) == 1:
        return f"{leading[0]} has {words}"
    if len(counts := {one.n for one in row.scores.values()}) > 1:
        if len(row.scores) > MOST_MODELS:
            return f"not of the same samples, n from {min(counts)} to {max(counts)}: see the table"
        each = (f"{column} {format_number(one.value)} (n={one.n})" for column, one in row.scores.items())
        return f"not of the same samples: {', '.join(each)}"
    direction = "highest" if row.higher_is_better else "lowest"
    return f"{direction} of {len(row.scores)} models is {' and '.join(leading)}, {words}"


def _told_apart(row: Row, baseline: str | None) -> str:
    """What is known of each model against the baseline; of many how many are better and worse."""
    if len(row.differences) > MOST_MODELS:
        verdicts = Counter[str](difference.verdict for difference in row.differences.values())
        words = {"better": "better", "worse": "worse", "undecided": "not told apart"}
        return f"; against {baseline}: {', '.join(f'{verdicts[name]} {word}' for name, word in words.items())}"
    found = [
        f"{column} is {difference.verdict.replace('undecided', 'not told apart')}, {format_paired(difference.paired)}, "
        f"corrected p {format_p(difference.p_corrected)}"
        for column, difference in row.differences.items()
    ]
    return f"; against {baseline}: {'; '.join(found)}" if found else ""
