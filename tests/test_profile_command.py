"""``famcli profile``: what it prints and writes, and the processes it starts, which never outlive it."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from made_records import BSWA, FAM
from made_runs import passkey_run
from test_checkpoint import save_small

from famcli.cli.main import main
from famcli.fields import read_fields
from famcli.profiling import launch
from famcli.profiling.job import Job
from famcli.profiling.record import Profile
from famcli.profiling.run import Profiling

PROGRAM = "import sys; from famcli.cli.main import main; sys.exit(main())"
MIB = 2**20

OPENED = {
    "kind": "opened",
    **{"device": "cpu", "dtype": "float32", "threads": 1, "parameters": 10, "memory": "fam, B 4", "grows": False},
    **{"window": 8, "longest_text": 16, "program": 100 * MIB, "rest": 110 * MIB},
}
RATES = {"kind": "rates", "products": [1e9, 1e9, 1e9], "products_work": [2e9, 2e9, 2e9], "bytes": [2e9, 2e9]}


def told(tokens: int) -> list[dict[str, Any]]:
    """What a process says of a length that takes a millisecond a token."""
    return [
        {"kind": "work", "tokens": tokens, "operations": 500_000 * tokens, "decoding_bytes": 10**6},
        {
            **{"kind": "point", "repeat": 0, "tokens": tokens, "along": 1e-3 * (tokens - 1), "own": 1e-3},
            **{"along_work": 5e-4 * (tokens - 1), "own_work": 5e-4},
        },
        {
            **{"kind": "length", "repeat": 0, "tokens": tokens, "computed": tokens, "peak": 120 * MIB, "state": 512},
            "decode": [2e-3, 1e-3, 1.5e-3],
        },
    ]


def say(monkeypatch: pytest.MonkeyPatch, messages: list[dict[str, Any]], then: str = "") -> None:
    """Every process says this, whatever it is asked, and then does that."""
    lines = "".join(json.dumps(message) + "\n" for message in messages)
    code = f"import os, sys, time; sys.stdout.write({lines!r}); sys.stdout.flush(); {then}"
    monkeypatch.setattr(launch, "COMMAND", (sys.executable, "-c", code))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models in the current directory."""
    monkeypatch.chdir(tmp_path)
    save_small(Path("fam"), "fam")
    save_small(Path("bswa"), "bswa")


COMMAND = ["profile", "--model", "fam", "--lengths", "8,16,32,64"]
DONE = [OPENED, RATES, *(message for n in (8, 16, 32, 64) for message in told(n)), RATES, {"kind": "done"}]


@pytest.mark.usefixtures("small")
def test_files_and_json_hold_the_same_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say(monkeypatch, DONE)
    assert main([*COMMAND, "--against", "bswa", "--json", "--output", "cost"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(Path("cost/profile.json").read_text())
    assert printed.pop("format") == "famcli profile 1"
    figures = printed.pop("published")["figures"]
    assert {(f["table"], f["model"], f["name"], f["value"]) for f in figures} >= {
        (13, "BSWA", "26k tokens", 4.4),
        (14, "FAM", "258k tokens", 154.9),
    }
    profile = read_fields(Profile, printed, "profile.json")
    assert [model.name for model in profile.models] == ["fam", "bswa"]
    cost = profile.models[0].lengths[1]
    assert (cost.tokens, cost.seconds, cost.tokens_per_second) == pytest.approx((16, 0.016, 1000))
    assert (cost.product_share, cost.bandwidth_share) == pytest.approx((0.5, 1e6 / 1.5e-3 / 2e9))
    fit = profile.models[0].fit
    assert fit is not None and (fit.scale, fit.exponent) == pytest.approx((5e-4, 1.0), rel=1e-6)
    with open("cost/profile.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["tokens"]) for row in rows] == [
        (m, n) for m in ("fam", "bswa") for n in ["8", "16", "32", "64"]
    ]
    assert float(rows[2]["seconds"]) == pytest.approx(0.032) and int(rows[2]["peak_memory_bytes"]) == 120 * MIB
    words = " ".join(ElementTree.parse("cost/profile.svg").getroot().itertext())
    for text in ("seconds to read", "peak memory", "one token more", "fam, 64: 0.064 seconds", "bswa"):
        assert text in words


@pytest.mark.usefixtures("small")
def test_tables_say_all_that_there_is_to_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = {**RATES, "products": [1e9, 1e9, 3e9, 3e9]}
    refused = {"kind": "refused", "tokens": 64, "state": 2**30, "needs": 3 * 2**30, "free": 2**31}
    say(monkeypatch, [OPENED, busy, *told(8), *told(16), *told(32), refused, {"kind": "done"}])
    assert main([*COMMAND, "--training-blocks", "2"]) == 0
    out = capsys.readouterr().out
    assert " ".join(out.splitlines()[3].split()) == "16 16 0.016 1,000 50% 120.0 MiB 512 B 1.5 [1.25, 1.75] 33%"
    assert "fam, 64: refused: its state of 1.0 GiB needs 3.0 GiB with the copies of it, and 2.0 GiB are free" in out
    assert "1.000  [1.000, 1.000]  3 lengths, 8 to 32" in out
    assert "fam: matrix products ran at 1.0 to 3.0 GFLOP/s (quartiles): this machine did something else" in out
    assert "fam: it was trained on at most 16 tokens" in out
    assert "154.9" in out and "Table 13" in out
    assert "fam, training over 2" not in out


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("then", "why"),
    [
        ("os.kill(os.getpid(), 9)", "its process was ended by SIGKILL, which systems do when memory runs out"),
        ("raise ValueError('a weight is missing')", "its process broke off: ValueError: a weight is missing"),
    ],
)
def test_a_model_that_breaks_off_is_a_line(
    then: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say(monkeypatch, [OPENED, RATES, *told(8), *told(16)], then)
    assert main([*COMMAND, "--against", "bswa"]) == 0
    said = capsys.readouterr()
    assert f"fam: {why}" in said.err and f"bswa: {why}" in said.out
    assert said.out.count("not reached") == 2 * 2
    say(monkeypatch, [OPENED], then)
    assert main(COMMAND) == 1, "nothing was measured"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "no model given"),
        (["--against", "fam"], "no model given"),
        (["--model", "fam", "--against", "nothing"], "unknown model 'nothing'"),
        (["--model", "fam,block_size=0"], "'block_size' must be at least 1"),
        (["--model", "fam", "--lengths", "4q"], "--lengths must be numbers of tokens such as 1k,64k,1M or 5000"),
        (["--model", "fam", "--lengths", "0"], "--lengths must be"),
        (["--model", "fam", "--lengths", "129M"], "at most 128M"),
        (["--model", "fam", "--training-blocks", "1,x"], "--training-blocks must be whole numbers from 1"),
        (["--model", "fam", "--training-blocks", ""], "--training-blocks must be whole numbers from 1"),
        (["--model", "fam", "--repeat", "0"], "--repeat"),
        (["--model", "fam", "--output", "fam/config.json/x"], "cannot write fam/config.json/x/profile.json"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(
    args: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "COMMAND", ("false",))
    monkeypatch.setattr(launch.subprocess, "Popen", None)
    assert main(["profile", *args]) == 2
    said = capsys.readouterr()
    assert words in said.err and not said.out


@pytest.fixture
def shown(small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """A profile in ``cost`` and two runs in ``runs``; the options that name them."""
    say(monkeypatch, DONE)
    assert main([*COMMAND, "--output", "cost"]) == 0
    passkey_run(Path("runs"), "bswa-tiny", BSWA)
    passkey_run(Path("runs"), "fam-tiny", FAM)
    capsys.readouterr()
    return ["--output", "runs", "--profile", "cost"]


@pytest.mark.parametrize("name", ["table", "markdown", "csv", "latex", "json", "html"])
@pytest.mark.parametrize("baseline", [[], ["--baseline", "bswa-tiny"]])
def test_comparisons_show_a_profile_in_every_format(
    name: str, baseline: list[str], shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *shown, *baseline, "--format", name]) == 0
    out = capsys.readouterr().out
    if name == "csv":
        rows = [row for row in csv.DictReader(io.StringIO(out)) if row["task"] == "reading"]
        value = "value" if baseline else "fam"
        found = {(row["metric"], row["length"]): float(row[value]) for row in rows}
        assert len(found) == len(rows) == 4 * 6
        assert found["cost.seconds", "32"] == pytest.approx(0.032)
        assert found["cost.decode_seconds", "64"] == pytest.approx(1.5e-3)
    elif name == "json":
        assert json.loads(out)["profile"]["models"][0]["fit"]["exponent"] == pytest.approx(1.0)
    else:
        assert "0.032" in out and "[1.000, 1.000]" in out and "120.0 MiB" in out


def test_a_report_shows_a_profile_and_its_picture(shown: list[str]) -> None:
    assert main(["report", *shown, "--to", "page.html", "--plots", "plots"]) == 0
    page = Path("page.html").read_text()
    assert "What reading costs by length" in page and "seconds to read" in page and "0.032" in page
    drawn, alone = (list(ElementTree.parse(f"{where}/profile.svg").getroot().itertext()) for where in ("plots", "cost"))
    assert drawn == alone, "the same picture, in the colours of the page's models"
    assert not Path("plots/run-cost.svg").exists(), "one picture of cost is enough"
    assert main(["report", *shown[:2], "--to", "bare.html"]) == 0
    assert "What reading costs by length" not in Path("bare.html").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found.update(format="famcli profile 9"), "is no profile of famcli"),
        (lambda found: found.pop("models"), "cost/profile.json lacks the field 'models'"),
        (lambda found: found["models"][0]["lengths"][0].update(seconds="long"), "field 'models[0].lengths[0].seconds'"),
        (lambda found: found["models"][0]["lengths"][0].pop("seconds"), "fam: the length of 8 tokens lacks figures"),
        (lambda found: found["models"][0]["lengths"][0].update(tokens=-8), "fam: the length of -8 tokens lacks"),
    ],
)
def test_a_damaged_profile_is_named(
    change: Any, words: str, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path("cost/profile.json")
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))
    for verb in ("compare", "report"):
        assert main([verb, *shown]) == 2
        assert words in capsys.readouterr().err
    file.unlink()
    assert main(["compare", *shown]) == 2
    assert "cost/profile.json is missing" in capsys.readouterr().err


def children(pid: int) -> list[int]:
    """Process ids, by the parent that each names."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parts = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(parts[1]) == pid and parts[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def ends(pid: int) -> bool:
    """Whether a process is gone, or is soon."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_behind(how: signal.Signals) -> None:
    """However the command ends; what was measured by then is shown where it can be."""
    command = [sys.executable, "-c", PROGRAM, "profile", "--model", "fam", "--lengths", "8,16,32,64M"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stdout is not None
        for line in process.stderr:
            if "32 tokens measured" in line:
                break
        (child,) = children(process.pid)
        os.kill(process.pid, how)
        out = process.stdout.read()
        assert process.wait() == (130 if how == signal.SIGINT else -how)
        left = process.stderr.read()
    assert ends(child)
    if how == signal.SIGINT:
        assert "interrupted: what was measured is shown above" in left and "Traceback" not in left
        assert "64M" in out and out.count("not reached") == 1 and "lengths, 8 to" in out


@pytest.mark.usefixtures("small")
def test_a_peak_is_that_of_the_model_alone(tmp_path: Path) -> None:
    """Not that of the program that asks, nor of the model before it."""
    save_small(tmp_path / "large", "fam", width=320, ffn_width=10_000)
    here = bytearray(b"x") * (200 * MIB)
    profiling = Profiling([Job(name, (16,), decode=2) for name in ("large", "fam")], (), lambda name, message: None)
    profiling.run()
    large, small = profiling.result("text").models
    peaks = [model.lengths[0].peak_memory_bytes for model in (large, small)]
    assert peaks[0] and peaks[1] and small.program_bytes
    weights = 3 * 3 * 320 * 10_000 * 4
    assert weights < peaks[0] - peaks[1] < 1.5 * weights
    assert peaks[1] - small.program_bytes < 60 * MIB < weights
    del here
