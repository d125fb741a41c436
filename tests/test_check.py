"""The gate: what it lets through, what it stops, what it refuses to judge, and what it writes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import passkey_record
from scipy.stats import binomtest

from famcli.errors import UserError
from famcli.evaluation import yardstick
from famcli.evaluation.journal import JOURNAL_NAME, Entry
from famcli.evaluation.record import RunRecord
from famcli.gate.baseline import Baseline, BaselineRun, CostGate, CostGates, Tolerance, read_baseline, write_baseline
from famcli.gate.baseline_run import new_run
from famcli.gate.check import Check, Verdict, judge, match, refuse
from famcli.gate.cost import MeasuredCost, judge_cost
from famcli.gate.update import moves, new_baseline
from famcli.metrics.statistics import clustered_mean
from famcli.reports.check_formats import to_junit, to_markdown


def made_run(
    folder: Path,
    values: Sequence[float],
    documents: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    metric: Mapping[str, Any] | None = None,
    **fields: Any,
) -> RunRecord:
    """A run in ``folder`` whose samples have these scores, all in one cell."""
    spec = {"paper": True, "higher_is_better": True, "mean": "arithmetic", **(metric or {})}
    record = passkey_record("model", {(512, "start"): [1.0]}, "2030", path=folder, **fields)
    documents = documents or [""] * len(values)
    needed = [f.name for f in dataclasses.fields(Entry) if f.default is f.default_factory is dataclasses.MISSING]
    blank = {name: {} if name in ("details", "answer") else 0 for name in needed}
    entries = [
        Entry(
            **{
                **blank,
                "id": f"s{i}",
                "cell": {"length": 512, "position": "start"},
                "document": document,
                "prompt_sha256": "",
                "output": "",
                "reference": f"right {i}",
                "scores": {"accuracy": value},
                "weights": {"accuracy": weights[i]} if weights else {},
                "seconds": 0.0,
            }
        )
        for i, (value, document) in enumerate(zip(values, documents, strict=True))
    ]
    mean = clustered_mean(
        list(values),
        list(weights or [1.0] * len(values)),
        [e.document or e.id for e in entries],
        spec["mean"] == "geometric",
    )
    assert mean is not None
    record.task["metrics"] = {"accuracy": spec}
    record.metrics = {"accuracy": mean}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JOURNAL_NAME).write_bytes(b"".join(entry.to_line() for entry in entries))
    return record


def checked(before: RunRecord, after: RunRecord, tolerance: Tolerance | None = None) -> Check:
    """``after`` against the baseline that ``before`` makes, with ``tolerance`` or the default one for its score."""
    run = new_run(before, None)
    if tolerance:
        run = dataclasses.replace(run, scores=tuple(dataclasses.replace(s, tolerance=tolerance) for s in run.scores))
    baseline = Baseline((run,))
    matched = match(baseline.runs, [after])
    refuse(matched, "base.json")
    return judge(baseline, matched, [after])


@settings(max_examples=60, deadline=None)
@given(
    before=st.lists(st.booleans(), min_size=1, max_size=24),
    changes=st.lists(st.booleans(), min_size=24, max_size=24),
    level=st.sampled_from([0.01, 0.05, 0.2]),
)
def test_a_drop_is_significant_where_the_one_sided_sign_test_says_so(
    tmp_path_factory: pytest.TempPathFactory, before: list[bool], changes: list[bool], level: float
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    after = [b != change for b, change in zip(before, changes, strict=False)]
    runs = [made_run(folder / str(i), [float(v) for v in values]) for i, values in enumerate((before, after))]
    losses = sum(b and not a for b, a in zip(before, after, strict=True))
    wins = sum(a and not b for b, a in zip(before, after, strict=True))
    expected = wins + losses > 0 and binomtest(losses, wins + losses, alternative="greater").pvalue < level
    assert checked(*runs, Tolerance("no_significant_drop", level)).passed is not expected


@pytest.mark.parametrize(
    ("tolerance", "before", "after", "lower_is_better", "passes"),
    [
        (Tolerance("absolute", 0.02), 0.9, 0.88, False, True),
        (Tolerance("absolute", 0.02), 0.9, 0.879, False, False),
        (Tolerance("absolute", 0.02), 0.9, 1.0, False, True),
        (Tolerance("absolute", 0.0), 0.1 + 0.2, 0.3, False, True),
        (Tolerance("absolute", 0.02), 4.0, 4.02, True, True),
        (Tolerance("absolute", 0.02), 4.0, 4.03, True, False),
        (Tolerance("absolute", 0.02), 4.0, 1.0, True, True),
        (Tolerance("relative", 0.02), 200.0, 204.0, True, True),
        (Tolerance("relative", 0.02), 200.0, 204.1, True, False),
    ],
)
def test_bounds_are_on_what_is_worse(
    tmp_path: Path, tolerance: Tolerance, before: float, after: float, lower_is_better: bool, passes: bool
) -> None:
    spec = {"higher_is_better": not lower_is_better}
    runs = [made_run(tmp_path / str(i), [value] * 3, metric=spec) for i, value in enumerate((before, after))]
    assert checked(*runs, tolerance).passed is passes


def test_an_amount_is_no_count_of_samples(tmp_path: Path) -> None:
    for number, (after, why) in enumerate([(0.0, "1.000 worse"), (0.9, "0.100 worse"), (0.9998, "0.0002 worse")]):
        runs = [made_run(tmp_path / f"{number}{i}", [value] * 3) for i, value in enumerate((1.0, after))]
        assert checked(*runs, Tolerance("absolute", 0.02)).verdicts[0].why == why


def test_drops_of_lower_is_better_scores_count_clusters_not_samples(tmp_path: Path) -> None:
    lower = {"higher_is_better": False, "mean": "geometric"}
    test = Tolerance("no_significant_drop", 0.05)
    alone, together = (
        [made_run(tmp_path / f"{name}{factor}", [10.0 * factor] * 12, documents, metric=lower) for factor in (1.0, 1.2)]
        for name, documents in (("alone", [str(i) for i in range(12)]), ("together", [str(i % 3) for i in range(12)]))
    )
    assert not checked(*alone, test).passed, "12 of 12 documents got worse"
    assert checked(alone[1], alone[0], test).passed
    blind = checked(*together, test)
    assert blind.passed
    assert "cannot fail" in blind.notes[0], "three documents cannot be significant"
    assert not checked(*together).passed, "so the default tolerance is another one"


def test_default_tolerances_can_fail(tmp_path: Path) -> None:
    def default(values: Sequence[float], **spec: Any) -> Tolerance:
        return new_run(made_run(tmp_path / "run", values, metric=spec), None).scores[-1].tolerance

    assert default([1.0] * 5) == Tolerance("no_significant_drop", 0.05), "2 ** -5 < 0.05"
    assert default([1.0] * 4) == Tolerance("absolute", 0.02), "2 ** -4 > 0.05"
    assert default([1.0] * 4 + [0.0] * 9) == Tolerance("absolute", 0.02), "what is wrong already cannot get worse"
    assert default([0.0] * 9) == Tolerance("no_significant_drop", 0.05), "there is nothing to lose"
    assert default([7.0] * 4, higher_is_better=False) == Tolerance("relative", 0.02)


def test_samples_that_weigh_otherwise_cannot_be_tested(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / str(w), [1.0] * 8, weights=[float(w)] * 8) for w in (1, 2)]
    assert not checked(*runs, Tolerance("no_significant_drop", 0.05)).passed
    assert checked(*runs, Tolerance("absolute", 0.02)).passed


def test_a_score_that_is_missing_fails(tmp_path: Path) -> None:
    before, after = (made_run(tmp_path / name, [1.0] * 8) for name in "ab")
    after.metrics = {}
    assert [(v.status, v.value) for v in checked(before, after).verdicts] == [("failed", None)]


def test_baseline_reads_as_it_was_written(tmp_path: Path) -> None:
    record = made_run(tmp_path / "run", [0.1 + 0.2, 1 / 3], ["a", ""], [2.0, 0.0], seed=7, limit=2)
    gates = CostGates("cpu", "float32", 1, CostGate(1.5, 1.25), {record.run_id: CostGate(100.0, 2.0)})
    baseline = new_baseline([record], Baseline((), gates), None)
    baseline = dataclasses.replace(baseline, cost=gates)
    write_baseline(baseline, tmp_path / "base.json")
    found = read_baseline(tmp_path / "base.json")
    assert found.cost == gates
    assert found.runs[0].scores == baseline.runs[0].scores
    assert found.runs[0].entries == baseline.runs[0].entries
    assert checked(record, record).passed and not match(found.runs, [record])[0].differences
    lines = (tmp_path / "base.json").read_text().splitlines()
    assert sum('"s0"' in line or '"s1"' in line for line in lines) == 2, "a line a sample"


def test_update_keeps_tolerances_and_shows_what_moved(tmp_path: Path) -> None:
    records = [made_run(tmp_path / str(i), [1.0] * 10 + [0.0] * i) for i in range(2)]
    old = new_baseline(records[:1], None, None)
    edited = dataclasses.replace(old.runs[0].scores[0], tolerance=Tolerance("absolute", 0.3))
    old = Baseline((dataclasses.replace(old.runs[0], scores=(edited,)),))
    new = new_baseline(records[1:], old, None)
    assert new.runs[0].scores[0].tolerance == Tolerance("absolute", 0.3)
    (move,) = moves(old, new, records[1:])
    assert (move.before, move.after, move.tolerance) == (1.0, 10 / 11, "at most 0.3 worse")
    assert [m.moved for m in moves(new, new, records[1:])] == [False]


@pytest.mark.parametrize(
    "value",
    [
        None,
        0.02,
        {},
        {"absolute": -1},
        {"absolute": "0.02"},
        {"absolute": True},
        {"absolut": 0.02},
        {"no_significant_drop": 0.05},
        {"no_significant_drop": {"level": 0}},
        {"no_significant_drop": {"level": 1.0}},
        {"absolute": 0.02, "relative": 0.02},
    ],
)
def test_tolerances_that_mean_nothing_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="a tolerance must be"):
        Tolerance.from_json(value)


@pytest.mark.parametrize("tolerance", [Tolerance("absolute", 0.02), Tolerance("no_significant_drop", 0.05)])
def test_tolerances_read_as_they_were_written(tolerance: Tolerance) -> None:
    assert Tolerance.from_json(json.loads(json.dumps(tolerance.to_json()))) == tolerance


def test_runs_find_the_baseline_run_that_differs_least(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / str(seed), [1.0] * (5 + seed), seed=seed) for seed in range(3)]
    kept = [new_run(run, None) for run in runs]
    found = match(kept, list(reversed(runs)))
    assert [one.record.seed for one in found if one.record] == [0, 1, 2]
    assert not any(one.differences for one in found)
    missing = match(kept, runs[:2])
    with pytest.raises(UserError, match="no run of passkey"):
        refuse(missing, "base.json")


def test_reports_hold_any_name() -> None:
    verdict = Verdict(
        "passkey", "accuracy", {"length": 512}, "failed", 0.5, 4, 1.0, "at most 0.02 worse", "a|b <c> & \x00"
    )
    check = Check("./my|model<\x01>_x", "fam", (verdict, dataclasses.replace(verdict, status="skipped")), ("a|note",))
    root = ElementTree.fromstring(to_junit(check).encode())
    (failure,) = root.iter("failure")
    assert r"a|b <c> & \x00" in failure.get("message", "")
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("2", "1", "1")
    table = [line for line in to_markdown(check).splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {8}
    assert "<c" not in to_markdown(check).replace("\\<", "")


def cost(run: str = "run", throughput: float = 100.0, memory: float = 1.5, **fields: Any) -> MeasuredCost:
    values: dict[str, Any] = {"device": "cpu", "dtype": "float32", "threads": 1, **fields}
    return MeasuredCost(**values, memory=memory, throughput={run: throughput})


@pytest.mark.parametrize(
    ("measured", "statuses"),
    [
        (cost(), ["passed", "passed"]),
        (cost(throughput=50.1), ["passed", "passed"]),
        (cost(throughput=49.9), ["failed", "passed"]),
        (cost(memory=1.87), ["passed", "passed"]),
        (cost(memory=1.88), ["passed", "failed"]),
        (cost(throughput=1.0, memory=9.0, threads=2), ["skipped", "skipped"]),
        (cost(throughput=1.0, device="cuda:0"), ["skipped", "skipped"]),
        (cost(run="other"), ["skipped", "passed"]),
        (None, ["skipped", "skipped"]),
    ],
)
def test_cost_is_gated_by_ratios(measured: MeasuredCost | None, statuses: list[str], tmp_path: Path) -> None:
    record = made_run(tmp_path / "run", [1.0], run_id="run")
    gates = CostGates("cpu", "float32", 1, CostGate(1.5, 1.25), {"run": CostGate(100.0, 2.0)})
    baseline = Baseline((BaselineRun(record, (), {}),), gates)
    matched = [dataclasses.replace(one, differences=()) for one in match(baseline.runs, [record])]
    assert [verdict.status for verdict in judge_cost(baseline, matched, measured)] == statuses
    assert judge_cost(Baseline(baseline.runs), matched, measured) == [], "off unless the baseline has it"


def test_meter_divides_by_the_matrix_product_of_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32, beside=0)
    assert all(rate > 0.1 for rate in yardstick.CostMeter(model)._products()), "any machine does 0.1 GFLOP/s"
    rates = iter([[99.0], [2.0, 4.0], [6.0, 1000.0], [5.0], [5.0]])
    monkeypatch.setattr(yardstick.CostMeter, "_products", lambda self: next(rates))
    meter = yardstick.CostMeter(model)
    assert meter.memory is None
    long, short = (
        passkey_record(
            "m", {(512, "start"): [1.0]}, "2030", run_id=name, cost={"seconds": s, "tokens_per_second": 500.0}
        )
        for name, s in (("long", 2.0), ("short", 0.2))
    )
    assert meter.measure(lambda: long) is long
    meter.measure(lambda: short)
    assert meter.throughput == {"long": 100.0}, "the median of 2, 4, 6 and 1000 is 5"
    assert meter.memory is not None and meter.memory >= 1.0
