"""The regression check: runs against a baseline, score by score, within tolerances."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from famcli.compare.cells import Setting, format_settings
from famcli.compare.pairing import bound_differences, comparable, differing, samples_of
from famcli.errors import UserError
from famcli.evaluation.record import RunRecord
from famcli.gate.baseline import Baseline, BaselineRun, Score, Tolerance, question, score_key
from famcli.gate.baseline_run import blind, checked_scores, measure_of, members


@dataclass(frozen=True)
class Verdict:
    """One line of a check.

    Attributes:
        task, metric, settings: what was measured, see ``Score``.
        status: ``skipped`` where a cost could not be measured.
        value, n: of the run; ``None`` where there is none.
        baseline: value of the baseline.
        tolerance: how much worse it may be, in words.
        why: what decided.
    """

    task: str
    metric: str
    settings: Mapping[str, Setting]
    status: Literal["passed", "failed", "skipped"]
    value: float | None
    n: int | None
    baseline: float
    tolerance: str
    why: str


@dataclass(frozen=True)
class Check:
    """All verdicts of ``model``, which models the baseline was ``made_of``, and what a reader should know besides."""

    model: str
    made_of: str
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()

    def count(self, status: str) -> int:
        """Number of verdicts of that status."""
        return sum(verdict.status == status for verdict in self.verdicts)

    @property
    def passed(self) -> bool:
        """Nothing failed."""
        return not self.count("failed")


@dataclass(frozen=True)
class Matched:
    """A baseline's run, the run to be held against it, and what forbids to compare them."""

    run: BaselineRun
    record: RunRecord | None
    differences: tuple[str, ...]


def asked_in(record: RunRecord) -> dict[str, str]:
    """The digests of the questions that a run answered, by sample id."""
    return {id: question(entry.reference, entry.cell) for id, entry in samples_of(record).items()}


def match(
    runs: Iterable[BaselineRun],
    records: Sequence[RunRecord],
    asked: Callable[[RunRecord], Mapping[str, str]] = asked_in,
) -> list[Matched]:
    """Finds for each run of a baseline the run of the same task that differs least from it; none is taken twice.

    Args:
        runs: the baseline's.
        records: the runs.
        asked: the digests of a run's questions by sample id; runs that have not begun have no samples to look at.
    """
    left, found = list(records), []
    for run in runs:
        same = [record for record in left if record.task["name"] == run.record.task["name"]]
        differences = [run_differences(record, asked(record), run) for record in same]
        i = min(range(len(same)), key=lambda i: len(differences[i]), default=None)
        if i is None:
            found.append(Matched(run, None, ()))
            continue
        left.remove(same[i])
        found.append(Matched(run, same[i], tuple(differences[i])))
    return found


def run_differences(record: RunRecord, asked: Mapping[str, str], run: BaselineRun) -> list[str]:
    """What forbids to hold a run against one of a baseline, such as ``limit: 5, none`` (the run's first).

    Args:
        record: the run, which need not have begun; its cells say what settings there are.
        asked: digests of its samples' questions by id.
        run: the baseline's.
    """
    found = comparable(record, run.record)
    found += [words for words in bound_differences(record, run.record) if words not in found]
    if record.context["truncate"] and record.model["tokenizer"] != run.record.model["tokenizer"]:
        found += differing(*({"tokenizer": one.model["tokenizer"]} for one in (record, run.record)))
    named = {difference.partition(":")[0] for difference in found}
    ours, theirs = record.task["options"], run.record.task["options"]
    for name in dict.fromkeys([*ours, *theirs]):
        if name not in named | {"data", *(record.task["data"] or {})} and ours.get(name) != theirs.get(name):
            found.append(f"{name}: {json.dumps(ours.get(name))}, {json.dumps(theirs.get(name))}")
    if found:
        return found
    kept = {id: entry.reference for id, entry in run.entries.items()}
    if asked.keys() != kept.keys():
        return [f"samples: {_sample_count(asked.keys() - kept.keys())}, {_sample_count(kept.keys() - asked.keys())}"]
    other = [id for id in asked if asked[id] != kept[id]]
    return [f"samples: {len(other)} of one id are other questions, such as {min(other)}"] if other else []


def _sample_count(ids: set[str]) -> str:
    return f"{len(ids)} more, such as {min(ids)}" if ids else "none more"


def refuse(matched: Iterable[Matched], where: str) -> None:
    """Makes sure that there is a comparable run for each of the baseline's.

    Raises:
        UserError: there is not; it names what differs.
    """
    wrong = []
    for one in matched:
        name = one.run.record.task["name"]
        if one.record is None:
            wrong.append(f"no run of {name}")
        elif one.differences:
            wrong.append(f"{name}: {'; '.join(one.differences)}")
    if wrong:
        raise UserError(
            f"not comparable to the baseline {where} (the run's, then the baseline's): {' / '.join(wrong)}",
            "if the baseline is to change, repeat the command with --update",
        )


def judge(baseline: Baseline, matched: Sequence[Matched], records: Sequence[RunRecord]) -> Check:
    """The verdicts on scores; cost is judged by ``famcli.gate.cost``.

    Args:
        baseline: the baseline.
        matched: each of its runs with a comparable one.
        records: all runs; those without a counterpart are named in a note.
    """
    verdicts = [
        _judge(one.run, one.record, score) for one in matched if one.record is not None for score in one.run.scores
    ]
    notes = []
    used = [one.record for one in matched]
    for record in records:
        if record not in used:
            notes.append(f"not checked: {record.task['name']} is not in the baseline; add it with --update")
    unable = [_name(one.run.record, score) for one in matched for score in one.run.scores if blind(one.run, score)]
    if unable:
        notes.append(f"cannot fail, too few samples could get worse (an absolute tolerance can): {'; '.join(unable)}")
    for one in matched:
        if one.record:
            notes += [note for note in _notes(one.record, one.run.record) if note not in notes]
    made_of = dict.fromkeys(one.run.record.model["name"] for one in matched)
    return Check(records[0].model["name"], ", ".join(made_of), tuple(verdicts), tuple(notes))


def _name(record: RunRecord, score: Score) -> str:
    return f"{record.task['name']} {score.metric} {format_settings(score.settings)}".rstrip()


def _notes(record: RunRecord, baseline: RunRecord) -> list[str]:
    ours, theirs = (f"{run.device} in {run.dtype}" for run in (record, baseline))
    return [f"the runs were made on {ours}, the baseline on {theirs}"] if ours != theirs else []


def _judge(run: BaselineRun, record: RunRecord, score: Score) -> Verdict:
    found = {score_key(metric, settings): value for metric, settings, value in checked_scores(record)}.get(score.key)
    status, why = (False, "the run has no such score")
    if found:
        if score.tolerance.kind == "no_significant_drop":
            status, why = _tested(run, record, score)
        else:
            status, why = _bounded(run, score, found.value)
    return Verdict(
        task=record.task["name"],
        metric=score.metric,
        settings=score.settings,
        status="passed" if status else "failed",
        value=found.value if found else None,
        n=found.n if found else None,
        baseline=score.value,
        tolerance=tolerance_words(score.tolerance),
        why=why,
    )


def tolerance_words(tolerance: Tolerance) -> str:
    """``at most 0.02 worse``, ``at most 2 % worse``, ``no significant drop (0.05)``."""
    if tolerance.kind == "absolute":
        return f"at most {tolerance.amount:g} worse"
    if tolerance.kind == "relative":
        return f"at most {100 * tolerance.amount:g} % worse"
    return f"no significant drop ({tolerance.amount:g})"


def _bounded(run: BaselineRun, score: Score, value: float) -> tuple[bool, str]:
    change = value - score.value
    worse = -change if run.record.task["metrics"][score.metric]["higher_is_better"] else change
    allowed = score.tolerance.amount * (abs(score.value) if score.tolerance.kind == "relative" else 1)
    # What is equal by hand must not fail by the rounding of its last bit.
    passed = worse <= allowed + 1e-9 * max(1.0, abs(score.value))
    if score.tolerance.kind == "relative" and score.value:
        amount = f"{100 * abs(worse / score.value):.2g} %"
    else:
        # With its decimals, so that nobody takes it for a count of samples.
        amount = f"{abs(worse):.3f}" if abs(worse) >= 0.001 else f"{abs(worse):.2g}"
    return passed, f"{amount} {'worse' if worse > 0 else 'better'}" if worse else "the same"


def _tested(run: BaselineRun, record: RunRecord, score: Score) -> tuple[bool, str]:
    ours, theirs = samples_of(record), members(run, score)
    measure = measure_of(run, score.metric, [*theirs.values(), *(ours[id] for id in theirs)])
    found = measure.difference({id: ours[id] for id in theirs}, theirs)
    if found is None:
        return False, "no test: the samples weigh otherwise than the baseline's; an absolute tolerance needs none"
    words = f"{found.losses} worse, {found.wins} better of {found.n}"
    if not found.losses and not found.wins:
        return True, "the same"
    if found.value == 0 or (found.value < 0) != measure.higher_is_better or found.p_value is None:
        return True, words
    one_sided = found.p_value / 2
    sign = "<" if one_sided < score.tolerance.amount else ">="
    return sign == ">=", f"{words}, p = {one_sided:.2g} {sign} {score.tolerance.amount:g}"
