"""``famcli compare``, from what is typed to what is printed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_records import BSWA, FAM
from made_runs import Answer, document_run, passkey_run

from famcli.cli.main import main
from famcli.reports.formats import FORMATS


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models in the directory ``results``."""
    monkeypatch.chdir(tmp_path)
    passkey_run(tmp_path / "results", "fam-tiny", FAM)
    passkey_run(tmp_path / "results", "bswa-tiny", BSWA)
    return tmp_path / "results"


def compare(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What a command that must succeed prints."""
    assert main(["compare", *args]) == 0
    return capsys.readouterr().out


def compare_json(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    return json.loads(compare(capsys, *args, "--format", "json"))


@pytest.mark.usefixtures("results")
def test_side_by_side_no_baseline_is_made_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare"]) == 0
    printed = capsys.readouterr()
    field = next(line for line in printed.out.splitlines() if line.lstrip().startswith("receptive field"))
    assert field.split() == ["receptive", "field", "1,024", "tokens", "unbounded"]
    assert "0.667 [0.208, 0.939] (n=3)" in next(line for line in printed.out.splitlines() if "start 64k" in line)
    assert printed.err == "interval: 95%, Wilson\n"
    found = compare_json(capsys)
    assert found["baseline"] is None
    assert all(row["differences"] == {} for row in found["rows"])


@pytest.mark.usefixtures("results")
def test_a_baseline_gives_differences_and_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--baseline", "bswa-tiny"]) == 0
    printed = capsys.readouterr()
    lines = printed.out[printed.out.index("\n\n") + 2 :].splitlines()
    assert lines[0].split() == ["task", "cell", "model", "value", "n", "difference", "p", *lines[0].split()[7:]]
    row = next(i for i, line in enumerate(lines) if "start 64k" in line)
    assert lines[row].split()[4] == "bswa-tiny"
    assert "+0.667" in lines[row + 1]
    assert lines[row + 1].split()[-3:] == ["2/0/1", "3", "undecided"]
    assert "corrected for 2 tests (Holm)" in printed.err
    assert "receptive field: bswa-tiny 1,024 tokens, fam-tiny unbounded" in printed.err


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_printed_whole_and_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--baseline", "bswa-tiny", "--per-sample", "--reference", "paper", "--by", "length", "--format", name]
    out = compare(capsys, *args)
    starts = {"markdown": "- passkey", "csv": "task,metric", "latex": "% needs", "json": "{", "html": "<!doctype html>"}
    assert out.startswith(starts[name])
    assert out.endswith("\n")


@pytest.mark.usefixtures("results")
def test_changed_samples_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    changes = compare_json(capsys, "fam-tiny", "--baseline", "bswa-tiny", "--per-sample")["changes"]
    assert [change["id"] for change in changes] == ["65536/start/000", "65536/start/001"]
    assert "samples that changed sides: 2" in compare(capsys, "fam-tiny", "--baseline", "bswa-tiny", "--per-sample")


def test_runs_that_cannot_be_compared_are_refused_with_what_differs(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    passkey_run(results, "cut", FAM, context={"max_context": 512, "truncate": "left"}, cut=9)
    assert main(["compare", "cut", "--baseline", "fam-tiny"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "they differ in max context: 512, none; truncation: left, none" in printed.err
    assert "--force" in printed.err
    assert main(["compare", "cut", "fam-tiny"]) == 2, "as they were named to be compared"
    capsys.readouterr()
    assert "passkey (max context 512, truncation left)" in compare(capsys), "nobody asked to compare them"
    assert main(["compare", "cut", "--baseline", "fam-tiny", "--force"]) == 0
    printed = capsys.readouterr()
    assert "passkey accuracy (not comparable)" in printed.out
    assert "NOT COMPARABLE" in printed.err


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        ("--per-sample", "--per-sample needs a model to compare with", "--baseline"),
        ("--baseline fam-tniy", "unknown run or model 'fam-tniy'", "fam-tiny"),
        ("fam-tiny --baseline fam-tiny", "nothing to compare with fam-tiny", "second"),
        ("--by answer_type", "no sample here has the group answer_type", "qasper"),
        ("--by document", "no sample here has the group document", "passkey"),
        ("--by size", "'size' is not one of", "famcli compare --help"),
        ("--reference papper", "unknown reference 'papper'", "paper"),
        ("--format pdf", "'pdf' is not one of", "famcli compare --help"),
    ],
)
def test_bad_usage_says_what_to_type(args: str, message: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *args.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert hint in printed.err.partition("hint: ")[2]


def test_ten_thousand_samples_take_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name in ("fam-tiny", "bswa-tiny"):
        answers = [Answer(f"{i}", {"f1": float(s)}, document=f"{i // 3}") for i, s in enumerate(rng.beta(1, 4, 10_000))]
        document_run(tmp_path, name, answers, "qasper")
    before = time.process_time()
    row = compare_json(capsys, "--output", str(tmp_path), "--baseline", "bswa-tiny")["rows"][0]
    assert time.process_time() - before < 8
    difference = row["differences"]["fam-tiny"]
    assert (difference["n"], difference["clusters"]) == (10_000, 3334)
