"""One damaged file costs nobody else: whatever stands in it, or in its place, it is named and the rest goes on."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from damages import FILES, VALUES, places, replaced
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_runs import Answer, document_run, passkey_run

from famcli import load_runs
from famcli.cli.main import main
from famcli.gate.baseline import read_baseline, write_baseline
from famcli.gate.update import new_baseline

CELLS = {(1024, "start"): [1.0, 1.0, 0.0], (65536, "start"): [1.0, 0.0, 0.0]}
STRETCHES = [{"tokens": 4, "bytes": 9, "log_likelihood": -3.5, "hits": 2}] * 4
OTHER_SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two whole runs, and two that will be damaged, of a task with cells and one with documents."""
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results"
    for name in ("good", "bad"):
        passkey_run(results, name, CELLS)
        answers = [
            Answer(
                f"{document}/{i}",
                {"f1": 0.5 + i / 10, "perplexity": 2.0 + i},
                {"kind": "long", "size": 3},
                document=document,
                weights={"perplexity": 10.0},
                details={"answer_type": "free", "distance": 700},
            )
            for document in ("a", "b")
            for i in range(2)
        ]
        record = document_run(results, name, answers, "qasper")
        rewrite(record.path / "run.json", _with_more)
        rewrite_lines(record.path / "samples.jsonl")
    return results


def _with_more(values: dict[str, Any]) -> None:
    values["task"]["metrics"]["perplexity"] = {"paper": False, "higher_is_better": False, "mean": "geometric"}
    values["task"]["data"] = {"source": "path", "name": "x", "revision": None, "sha256": "0" * 64, "rows": 4}
    values["context"] |= {"before": [1], "after": [2], "chat_template_args": {"enable_thinking": False}}


def rewrite(file: Path, change: Any) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def rewrite_lines(file: Path) -> None:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line["answer"] = {"token_ids": [5], "thinking_tokens": 3, "cut": True, "by_position": STRETCHES}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def bad(results: Path) -> tuple[Path, Path]:
    """The directories of the runs that are damaged, the one with cells first."""
    first, second = sorted(results.glob("passkey-bad-*")), sorted(results.glob("qasper-bad-*"))
    return first[0], second[0]


@pytest.fixture
def verbs(results: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """Whatever one run is like, every verb that reads runs shows the others; gives what was said of it."""

    def call(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*args, "--output", str(results)])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out, shown.err

    def check() -> str:
        caplog.clear()
        caplog.set_level(logging.WARNING)
        for args in (("list", "runs"), ("compare",), ("compare", "--format", "json"), ("compare", "--by", "length")):
            code, out, err = call(*args)
            assert code == 0 and "good" in out, (args, err)
        code, _, err = call("report", "--to", "report.html", "--plots", "plots")
        assert code == 0 and "good" in Path("report.html").read_text(), err
        assert {"good"} <= set(load_runs(results).runs["model"])
        for args in (("compare", "--baseline", "good"), ("report", "--baseline", "good", "--force", "--to", "r.html")):
            code, _, err = call(*args)
            assert code in (0, 2), err
        for name in ("bad", str(bad(results)[0])):
            code, _, err = call("compare", name, "--per-sample", "--baseline", "good")
            assert code in (0, 2), err
        return caplog.text

    yield check


@pytest.mark.parametrize("which", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_any_field_of_a_record_may_be_anything(which: int, results: Path, verbs: Any) -> None:
    file = bad(results)[which] / "run.json"
    whole = json.loads(file.read_text())

    @OTHER_SETTINGS
    @given(st.sampled_from(list(places(whole))), st.just(...) | VALUES)
    def damage(place: Any, value: Any) -> None:
        file.write_text(json.dumps(replaced(whole, place, value)))
        verbs()

    damage()


@pytest.mark.parametrize("which", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_any_field_of_a_sample_may_be_anything(which: int, results: Path, verbs: Any) -> None:
    file = bad(results)[which] / "samples.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    whole = json.loads(lines[1])

    @OTHER_SETTINGS
    @given(st.sampled_from(list(places(whole))), st.just(...) | VALUES)
    def damage(place: Any, value: Any) -> None:
        changed = json.dumps(replaced(whole, place, value)) + "\n"
        file.write_text("".join((lines[0], changed, *lines[2:])))
        verbs()

    damage()


def put(file: Path, content: bytes | None, kind: str) -> None:
    """Whatever ``kind`` names in the place of a file."""
    file.unlink()
    if kind == "a directory":
        file.mkdir()
    elif kind == "a pipe":
        os.mkfifo(file)
    elif kind == "a circle":
        file.symlink_to(file)
    else:
        assert content is not None
        file.write_bytes(content + b"\n")


@pytest.mark.parametrize("name", ["run.json", "samples.jsonl"])
@pytest.mark.parametrize("kind", FILES)
def test_whatever_stands_in_the_place_of_a_file_is_named(kind: str, name: str, results: Path, verbs: Any) -> None:
    for directory in bad(results):
        put(directory / name, FILES[kind], kind)
    said = verbs()
    if (kind, name) != ("empty", "samples.jsonl"):
        assert all(f"{directory / name}" in said for directory in bad(results)), said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["run.json", "samples.jsonl", "."])
def test_what_may_not_be_read_is_named(name: str, results: Path, verbs: Any) -> None:
    for directory in bad(results):
        (directory / name).chmod(0)
    said = verbs()
    for directory in bad(results):
        directory.chmod(0o700)
    assert all(str(directory) in said for directory in bad(results))


@pytest.fixture
def baseline(results: Path) -> Path:
    from famcli.evaluation.record import load_records

    records = [record for record in load_records(results) if record.model["name"] == "good"]
    file = results.parent / "base.json"
    write_baseline(new_baseline(records, None, None), file)
    read_baseline(file)
    rewrite(file, lambda values: values.update(cost=COST))
    return file


COST = {
    "device": "cpu",
    "dtype": "float32",
    "threads": 2,
    "memory": {"ratio": 1.5, "factor": 1.25},
    "throughput": {"x": {"ratio": 1.5, "factor": 1.25}},
}


def check_runs(results: Path, baseline: Path, *args: str) -> int:
    runs = [word for run in sorted(results.glob("*-good-*")) for word in ("--run", str(run))]
    return main(["check", *runs, "--baseline", str(baseline), "--output", str(results), *args])


def test_any_field_of_a_baseline_may_be_anything(
    results: Path, baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads(baseline.read_text())
    assert check_runs(results, baseline) == 0

    @settings(OTHER_SETTINGS, max_examples=60)
    @given(st.sampled_from(list(places(whole))), st.just(...) | VALUES)
    def damage(place: Any, value: Any) -> None:
        baseline.write_text(json.dumps(replaced(whole, place, value)))
        capsys.readouterr()
        code = check_runs(results, baseline, "--junit", "junit.xml")
        said = capsys.readouterr().err
        assert code in (0, 1) or (code == 2 and str(baseline) in said), said

    damage()


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_baseline_is_an_error_that_names_it(
    kind: str, results: Path, baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = b'{"famcli_baseline": 1, "x": '
    content = FILES[kind]
    put(baseline, None if content is None else mark + content, kind)
    for args in ((), ("--update",)):
        code = check_runs(results, baseline, *args)
        said = capsys.readouterr().err
        assert str(baseline) in said
        assert code == (0 if args and content is not None else 2), said
