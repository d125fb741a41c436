"""Tasks of other packages that fail: named with their sample and line, stopped at or skipped, and never averaged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from asked_samples import Asks
from made_runs import Answer, document_run
from small_runs import small_model

from famcli.cli.main import main
from famcli.errors import UserError
from famcli.evaluation.record import load_record
from famcli.evaluation.runner import evaluate
from famcli.task import Generate, MetricSpec, Prompt, Sample, Task, available_tasks, load_task

HERE = re.escape(str(Path(__file__)))


def sample(name: str, score: Callable[[Any], Any], request: Callable[[], Any] | None = None, **fields: Any) -> Sample:
    asked = request or (lambda: Generate(Prompt((f"say {name}",)), 2))
    return Sample(name, fields.pop("cell", {}), "", asked, score, **fields)


def good(answer: Any) -> dict[str, float]:
    return {"length": 1.0}


def divides(answer: Any) -> dict[str, float]:
    return {"length": 1 / 0}


@pytest.mark.parametrize(
    ("score", "why"),
    [
        (divides, r"cannot be scored: ZeroDivisionError: division by zero \({}:\d+\)"),
        (lambda answer: None, r"is scored None, not a number for each metric: length \({}:\d+\)"),
        (lambda answer: {"length": float("nan")}, r"is scored \{{'length': nan\}}, not a number .*\({}:\d+\)"),
        (lambda answer: {"length": "1"}, r"is scored .*, not a number .*\({}:\d+\)"),
        (lambda answer: {"length": [1]}, r"is scored .*, not a number .*\({}:\d+\)"),
        (lambda answer: {"other": 1.0}, r"is scored \{{'other': 1.0\}}, not a number .*\({}:\d+\)"),
        (lambda answer: {"length": 1.0, "more": 1.0}, r"is scored .*, not a number .*\({}:\d+\)"),
        (lambda answer: [1.0], r"is scored \[1.0\], not a number .*\({}:\d+\)"),
    ],
)
def test_a_scorer_that_fails_is_named_and_skipped_only_when_asked(tmp_path: Path, score: Any, why: str) -> None:
    samples = [sample("a", good), sample("b", score), sample("c", good)]
    with pytest.raises(UserError, match="task asks: sample b " + why.format(HERE)) as error:
        evaluate(small_model(), Asks(samples), results=tmp_path)
    assert "--on-error skip" in str(error.value.hint)
    record = evaluate(small_model(), Asks(samples), results=tmp_path, on_error="skip")
    assert record.status == "finished" and record.metrics["length"].n == 2
    assert [one["id"] for one in record.skipped] == ["b"]
    assert re.search(why.format(HERE), record.skipped[0]["why"])
    assert load_record(record.path) == record


@pytest.mark.parametrize(
    "request_",
    [
        lambda: 1 / 0,
        lambda: None,
        lambda: "text",
        lambda: Generate("text", 2),  # type: ignore[arg-type]
        lambda: Generate(Prompt((1,)), 2),  # type: ignore[arg-type]
        lambda: Generate(Prompt(("a",), document=3), 2),
        lambda: Generate(Prompt(("a",)), 0),
        lambda: Generate(Prompt(("a",)), 1.5),  # type: ignore[arg-type]
    ],
)
@pytest.mark.parametrize("document", [None, "book"])
def test_a_request_that_is_none_is_named_and_skipped_only_when_asked(
    tmp_path: Path, request_: Any, document: str | None
) -> None:
    samples = [sample("a", good), sample("b", good, request_, document=document), sample("c", good)]
    with pytest.raises(UserError, match=rf"task asks: .*sample b .*\({HERE}:\d+\)"):
        evaluate(small_model(), Asks(samples), results=tmp_path)
    record = evaluate(small_model(), Asks(samples), results=tmp_path, on_error="skip")
    assert (record.metrics["length"].n, [one["id"] for one in record.skipped]) == (2, ["b"])


def test_a_run_without_a_sample_left_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task asks failed on all of its 2 samples, for instance: .*division by zero"):
        evaluate(small_model(), Asks([sample("a", divides), sample("b", divides)]), results=tmp_path, on_error="skip")


def test_a_run_with_skipped_samples_goes_on_when_nothing_may_be_skipped(tmp_path: Path) -> None:
    broken = [sample("a", good), sample("b", divides)]
    first = evaluate(small_model(), Asks(broken), results=tmp_path, on_error="skip")
    assert evaluate(small_model(), Asks(broken), results=tmp_path, on_error="skip") == first
    with pytest.raises(UserError, match="sample b cannot be scored"):
        evaluate(small_model(), Asks(broken), results=tmp_path)
    mended = evaluate(small_model(), Asks([sample("a", good), sample("b", good)]), results=tmp_path)
    assert (mended.metrics["length"].n, mended.skipped) == (2, [])
    assert "skipped" not in json.loads((mended.path / "run.json").read_text())


def test_what_was_answered_before_a_failure_is_kept(tmp_path: Path) -> None:
    asked: list[str] = []

    def noted(answer: Any) -> dict[str, float]:
        asked.append("a")
        return {"length": 1.0}

    for _ in range(2):
        with pytest.raises(UserError, match="sample b cannot be scored"):
            evaluate(small_model(), Asks([sample("a", noted), sample("b", divides)]), results=tmp_path)
    assert asked == ["a"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"details": {"x": object()}}, "has a object in its details as 'x'"),
        ({"details": {"x": float("inf")}}, "has inf in its details"),
        ({"cell": [1]}, "has a list as its cell"),
        ({"document": 3}, "needs text as the name of its document"),
        ({"prompt_tokens": "3"}, "has '3' as its prompt_tokens"),
    ],
)
def test_samples_that_no_journal_could_hold_are_refused_before_anything_runs(
    tmp_path: Path, fields: dict[str, Any], why: str
) -> None:
    with pytest.raises(UserError, match=f"task asks: sample a {re.escape(why)}"):
        evaluate(small_model(), Asks([sample("a", good, **fields)]), results=tmp_path)
    assert not list(tmp_path.iterdir())


class Plain(Task):
    name, version, summary, metrics = "plain", 1, "a task", (MetricSpec("length"),)

    def samples(self, tokenizer: object, seed: int, limit: int | None) -> list[Sample]:
        return [sample("a", good), sample("b", divides)][:limit]


def install(monkeypatch: pytest.MonkeyPatch, tasks: dict[str, Any], own: bool = True) -> None:
    """Plugins beside famcli's own tasks."""
    from importlib.metadata import entry_points

    ours = list(entry_points(group="famcli.tasks")) if own else []
    given = [EntryPoint(name, f"of_others:{name}", "famcli.tasks") for name in tasks]
    load = EntryPoint.load

    def found(**wanted: str) -> list[EntryPoint]:
        known = [*given, *ours] if wanted["group"] == "famcli.tasks" else []
        return [entry for entry in known if entry.name == wanted.get("name", entry.name)]

    def loaded(entry: EntryPoint) -> Any:
        if not entry.value.startswith("of_others"):
            return load(entry)
        kind = tasks[entry.name]
        return kind() if not isinstance(kind, type) else kind

    monkeypatch.setattr("famcli.task.finding.entry_points", found)
    monkeypatch.setattr(EntryPoint, "load", loaded)


def leaves() -> Any:
    raise SystemExit(3)


def named(task: str, **fields: Any) -> type[Task]:
    return type("Named", (Plain,), {"name": task, **fields})


def test_no_plugin_breaks_the_list_of_tasks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hostile(type(Plain)):  # type: ignore[misc]
        @property
        def summary(cls) -> str:
            raise RuntimeError("no summary")

    broken: dict[str, Any] = {
        "leaves": leaves,
        "renamed": Plain,
        "words": named("words", metrics=("length",)),
        "none": named("none", metrics=()),
        "twice": named("twice", metrics=(MetricSpec("a"), MetricSpec("a"))),
        "texts": named("texts", version="1"),
        "silent": named("silent", summary=None),
        "hostile": Hostile("Hidden", (Task,), {"name": "hostile", "version": 1, "metrics": (MetricSpec("a"),)}),
        "shown": named("shown", summary="\x1b[31m[red]::error::\u202e"),
    }
    install(monkeypatch, {**broken, "plain": Plain})
    assert main(["list", "tasks"]) == 0
    out, err = capsys.readouterr()
    assert "plain (version 1): a task" in out and "passkey (version 1)" in out
    assert r"\x1b[31m[red]::error::\u202e" in out
    for name in broken.keys() - {"shown"}:
        assert f"warning: task '{name}' (of_others:{name})" in err, name
        with pytest.raises(UserError, match=f"task '{name}'"):
            load_task(name, {})
    assert main(["list", "tasks", "--json"]) == 0
    assert {"plain", "passkey"} <= {task["name"] for task in json.loads(capsys.readouterr().out)["tasks"]}


def test_nobody_takes_the_name_of_a_task_of_our_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, {"passkey": named("passkey"), "mine": named("passkey")})
    assert type(load_task("passkey", {})).__module__ == "famcli.tasks.passkey"
    assert available_tasks()["passkey"].__module__ == "famcli.tasks.passkey"
    with pytest.raises(UserError, match=r"task 'mine' \(of_others:mine\) calls itself 'passkey'"):
        load_task("mine", {})
    assert main(["list", "tasks"]) == 0
    assert "of_others:passkey is left out: 'passkey' is a task of famcli's own" in capsys.readouterr().err


def test_skipped_samples_are_shown_beside_the_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, {"plain": Plain})
    command = ["eval", "--task", "plain", "--model", "fam-tiny", "--output", str(tmp_path)]
    assert main(command) == 2
    assert re.search(rf"error: task plain: sample b .*\({HERE}:\d+\)", capsys.readouterr().err)
    assert main([*command, "--on-error", "skip"]) == 0
    out, err = capsys.readouterr()
    assert "1 of 2 samples, which count in no score: b; the first: task plain: sample b cannot be scored" in out
    assert "fam-tiny on plain: 1 of 2 samples, which count in no score" in err
    assert main([*command, "--on-error", "skip", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["skipped"][0]["id"] == "b"
    assert main(["list", "runs", "--output", str(tmp_path)]) == 0
    assert "finished, 1 skipped" in capsys.readouterr().out


def test_a_comparison_says_what_was_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = document_run(tmp_path, "one", [Answer("a", {"accuracy": 1.0}), Answer("b", {"accuracy": 0.0})])
    record.skipped = [{"id": f"s{i}", "why": "a reason"} for i in range(7)]
    record.save()
    assert main(["compare", "--output", str(tmp_path)]) == 0
    note = "skipped 7 of 9 samples, which count in no score: s0, s1, s2, s3, s4 and 2 more; the first: a reason"
    assert note in capsys.readouterr().err
    assert main(["report", "--output", str(tmp_path), "--to", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert note in page and "--on-error skip" in page
