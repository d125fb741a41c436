"""Names, cells, answers and files of others in what every verb prints and writes: shown, and nothing more."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from made_runs import Answer, document_run

from famcli.cli.main import main
from famcli.display import visible

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from fuzz_inputs import make_kit

NASTY = (
    "::error::x\x1b[31m\x9b2J\r\n::warning file=a::b\u202e\u200b[red][link=file]y[-red]"
    "|`<script>alert(1)<script>##[error]"
)
"""Also a name of files: it has no slash."""
FORMULA = "=HYPERLINK(1)"


def assert_safe(text: str) -> None:
    """Nothing in it steers a terminal, commands a CI job, or is not seen."""
    for line in text.split("\n"):
        assert line.isprintable(), repr(line)
        assert not line.lstrip().startswith("::"), line
        assert "##[" not in line
    assert "\u200b" not in text and "\u202e" not in text


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs in which everything that a run can name is nasty."""
    folder = tmp_path_factory.mktemp("runs")
    for name, right in ((NASTY, 1.0), (FORMULA, 0.0)):
        answers = [
            Answer(
                f"{NASTY} {i}",
                {NASTY: right if i else 0.5, "f1": 0.5},
                cell={NASTY: NASTY, "length": i},
                document=f"{NASTY} {i}",
                reference=NASTY,
                output=NASTY if i % 2 else FORMULA,
                details={NASTY: NASTY},
            )
            for i in range(6)
        ]
        told = {"options": {"data": NASTY}, "data": {"name": NASTY, "sha256": "0" * 64, "source": "path"}}
        record = document_run(folder, name, answers, NASTY, task=told)
        record.skipped = [{"id": NASTY, "why": NASTY}]
        record.model["fam"] = NASTY
        record.save()
    return folder


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "latex", "json", "html"])
@pytest.mark.parametrize("more", [[], ["--baseline", NASTY, "--per-sample"]], ids=["all", "against"])
def test_a_comparison(
    results: Path, form: str, more: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results.parent)
    assert main(["compare", "--output", str(results), "--format", form, *more]) == 0
    out, err = capsys.readouterr()
    assert_safe(out)
    assert_safe(err)
    shown = visible(NASTY)
    if form == "table":
        assert "[red][link=file]y[-red]" in out
    elif form == "markdown":
        for part in out.split("\n\n"):
            rows = [line for line in part.splitlines() if line.startswith("|")]
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1, "a table is as wide in every line"
        assert "<script" not in out and not re.search(r"(?<!\\)`", out)
    elif form == "csv":
        lines = list(csv.reader(io.StringIO(out)))
        assert "--baseline" in more or any(
            cell == f"'{FORMULA}" or cell.startswith(f"'{FORMULA} ") for line in lines for cell in line
        )
        assert not any(cell.startswith(("=", "@", "::")) for line in lines for cell in line)
        assert "--baseline" in more or "note: cells that a spreadsheet would run begin with an apostrophe" in err
    elif form == "html":
        assert "<script" not in out and html.escape(shown) in out
    elif form == "json":
        assert NASTY in json.dumps(json.loads(out), ensure_ascii=False).replace('\\"', '"').encode().decode(
            "unicode_escape", "ignore"
        ) or json.loads(out)


def test_a_report(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / f"{NASTY}.html"
    assert main(["report", "--output", str(results), "--to", str(page), "--plots", str(tmp_path / "plots")]) == 0
    out, err = capsys.readouterr()
    assert_safe(out)
    assert_safe(err)
    text = page.read_text(encoding="utf-8")
    assert all(character.isprintable() or character in "\n\t" for character in text)
    assert text.count("<script") == 2, "the page's own data and program"
    for plot in (tmp_path / "plots").glob("*.svg"):
        assert all(c.isprintable() or c == "\n" for c in plot.read_text()) and "<script" not in plot.read_text()


def test_a_list_of_runs(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--json"]):
        assert main(["list", "runs", "--output", str(results), *more]) == 0
        out, err = capsys.readouterr()
        assert_safe(out)
        assert_safe(err)
    assert {run["model"] for run in json.loads(out)["runs"]} == {NASTY, FORMULA}


def test_a_check(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = sorted(path for path in results.iterdir() if path.is_dir())
    base = tmp_path / f"{NASTY}.json"
    assert main(["check", "--run", str(runs[0]), "--output", str(results), "--baseline", str(base), "--update"]) == 0
    made = ["--markdown", str(tmp_path / "a.md"), "--junit", str(tmp_path / "a.xml")]
    for more in ([], made, ["--json"]):
        main(["check", "--run", str(runs[1]), "--output", str(results), "--baseline", str(base), *more])
        out, err = capsys.readouterr()
        assert_safe(out)
        assert_safe(err)
    assert_safe((tmp_path / "a.md").read_text())
    assert_safe((tmp_path / "a.xml").read_text())
    assert "<script" not in (tmp_path / "a.md").read_text() + (tmp_path / "a.xml").read_text()
    table = [line for line in (tmp_path / "a.md").read_text().splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in table} == {8}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, data and a recipe of nasty names."""
    (tmp_path / "kit").mkdir()
    make_kit(tmp_path / "kit")
    monkeypatch.chdir(tmp_path)
    shutil.move("kit/own", NASTY.replace(",", ""))
    row = json.loads(Path("kit/quality.jsonl").read_text().splitlines()[0])
    row["article_id"] = NASTY
    for i, question in enumerate(row["questions"]):
        question["question_unique_id"] = f"{NASTY} {i}"
    Path(f"{NASTY}.jsonl").write_text(json.dumps(row) + "\n" + '{"\\u001b[31m": 1}\n' * 2)
    Path("good.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


def test_runs_training_and_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--task", "passkey", "-o", "lengths=300", "-o", "trials=1"]
    text = ["--text", "kit/text", "--device", "cpu"]
    commands: list[tuple[list[str], int]] = [
        (["eval", *small, "--model", NASTY], 0),
        (["eval", *small, "--model", NASTY, "--json"], 0),
        (["eval", "--task", "quality", "--data", "good.jsonl", "--model", NASTY, "--limit", "1"], 0),
        (["eval", "--task", "quality", "--data", f"{NASTY}.jsonl", "--model", NASTY], 2),
        (["eval", "--task", NASTY, "--model", NASTY], 2),
        (["eval", *small, "--model", f"{NASTY} nowhere"], 2),
        (["eval", *small, "--model", f"{NASTY},{NASTY}=1"], 2),
        (["eval", *small, "-o", f"{NASTY}=1", "--model", NASTY], 2),
        (["sweep", *small, "--model", NASTY, "-v", "block_size=32,64"], 0),
        (["sweep", *small, "--model", NASTY, "-v", "fam_length=2,99"], 1),
        (["sweep", *small, "--model", NASTY, "-v", f"{NASTY}=2,99"], 2),
        (["data", "check", "quality", "--data", f"{NASTY}.jsonl"], 1),
        (["data", "check", "quality", "--data", f"{NASTY}.jsonl", "--json"], 1),
        (["data", "check", "quality", "--data", "good.jsonl"], 0),
        (["data", "cloze", "--text", "kit/text", "--output", f"{NASTY}.cloze", "--shortest", "100"], 0),
        (["train", "--recipe", "kit/recipe.yaml", *text, "--model", NASTY, "--output", f"{NASTY} out"], 0),
        (["train", "--recipe", f"{NASTY}.yaml", "--model", NASTY], 2),
        (["compare", NASTY], 0),
        (["compare", f"{NASTY}nothing"], 2),
        (["list", NASTY], 2),
        ([NASTY], 2),
    ]
    for command, code in commands:
        assert main(command) == code, command
        out, err = capsys.readouterr()
        assert_safe(out)
        assert_safe(err)


def test_a_template_and_a_config_that_say_nasty_things(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about: dict[str, Any] = {"bos_token": "<s>", "chat_template": "{{ raise_exception(" + json.dumps(NASTY) + ") }}"}
    Path("kit/hub/tokenizer_config.json").write_text(json.dumps(about))
    small = ["--task", "passkey", "-o", "lengths=600", "-o", "trials=1"]
    assert main(["eval", *small, "--model", "kit/hub", "--chat-template"]) == 2
    config = json.loads(Path("kit/hub/config.json").read_text())
    for changes in ({NASTY: 1}, {"model_type": NASTY}, {"hidden_act": NASTY}, {"hidden_size": NASTY}):
        Path("kit/hub/config.json").write_text(json.dumps({**config, **changes}))
        assert main(["eval", *small, "--model", "kit/hub"]) == 2
    out, err = capsys.readouterr()
    assert_safe(out)
    assert_safe(err)
    assert err.count("error: ") == 5
