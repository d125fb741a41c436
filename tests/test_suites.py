"""Suites of one's own, from the file to the runs; and what happens where the command line says something else."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from hub_models import save_hub_model
from test_checkpoint import save_small

from famcli.cli.main import main
from famcli.errors import UserError
from famcli.evaluation.record import load_record
from famcli.evaluation.suites import find_suite, list_suites
from famcli.reports.html.rerun import rerun_command

PASSKEY = {"task": "passkey", "options": {"lengths": 400, "trials": 1}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_suite(file: str, *tasks: dict[str, Any], **fields: Any) -> str:
    """JSON is YAML."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(json.dumps({**fields, "tasks": list(tasks)}))
    return file


def runs_of(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[list[dict[str, Any]], str]:
    """The records of ``famcli eval``, and what it told."""
    assert main(["eval", "--json", *args]) == 0
    out, err = capsys.readouterr()
    return [json.loads(Path(run["path"]).read_text()) for run in json.loads(out)["runs"]], err


def test_a_suite_names_tasks_models_data_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    save_small(Path("zoo/fam"), "fam", block_size=32)
    Path("zoo/books").mkdir()
    books = [{"short_book_title": t, "url": f"http://example.org/{t}", "text": t * 50} for t in "abc"]
    Path("zoo/books/rows.jsonl").write_text("".join(json.dumps(book) + "\n" for book in books))
    tasks = [
        {"task": "passkey", "options": {"lengths": ["400", 512], "trials": 3}, "limit": 4},
        {"task": "pg19", "data": "books", "limit_documents": 2},
    ]
    file = write_suite("zoo/suite.yaml", *tasks, models=["fam", "./fam,memory_segments=0"])
    records, err = runs_of(capsys, "--suite", file)
    assert [record["model"]["name"] for record in records] == ["zoo/fam"] * 2 + ["zoo/fam,memory_segments=0"] * 2
    assert [(r["limit"], r.get("limit_documents"), sum(c["n"] for c in r["cells"])) for r in records[:2]] == [
        (4, None, 4),
        (None, 2, 2),
    ]
    assert "note" not in err, "nothing else was typed"
    typed, err = runs_of(capsys, *("--suite", file, "--model", "zoo/fam", "-o", "trials=1", "--limit-documents", "1"))
    assert [record["task"]["options"].get("trials") for record in typed] == [1, None]
    assert [record.get("limit_documents") for record in typed] == [1, 1]
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert notes == [
        f"note: suite {file}: what is typed takes the place of models=zoo/fam,./zoo/fam,memory_segments=0".replace(
            "./zoo/", "zoo/"
        ),
        f"note: suite {file}: what is typed takes the place of trials=3 (passkey); limit_documents=2 (pg19)",
    ]


def test_a_suite_makes_the_runs_that_typing_it_makes(capsys: pytest.CaptureFixture[str]) -> None:
    save_small(Path("fam"), "fam", block_size=32)
    records, _ = runs_of(capsys, "--suite", write_suite("my.yaml", PASSKEY), "--model", "./fam")
    typed, _ = runs_of(capsys, *["--task", "passkey", "-o", "lengths=400", "-o", "trials=1", "--model", "./fam"])
    assert [record["run_id"] for record in records] == [record["run_id"] for record in typed]


def test_paths_are_from_the_file_on() -> None:
    entry = {"task": "pg19", "data": "a.jsonl,/b.jsonl,~/c.jsonl"}
    hub, sample, comma = ({"task": "pg19", "data": data} for data in ("hub", "sample", "x,y.jsonl"))
    Path("suites").mkdir()
    Path("suites/x,y.jsonl").touch()
    models = ["fam-tiny", "../m,adapter=a", "org/name", "./fam-tiny"]
    suite = find_suite(write_suite("suites/s.yaml", entry, hub, sample, comma, models=models))
    assert [e.options["data"] for e in suite.entries] == [
        "suites/a.jsonl,/b.jsonl,~/c.jsonl",
        "hub",
        "sample",
        "suites/x,y.jsonl",
    ]
    assert suite.models == ("fam-tiny", "./m,adapter=suites/a", "org/name", "suites/fam-tiny")
    Path("elsewhere/suites").mkdir(parents=True)
    os.symlink("elsewhere/suites", "link")
    linked = find_suite(write_suite("link/s.yaml", {"task": "pg19", "data": "../a.jsonl"}))
    Path("elsewhere/a.jsonl").touch()
    assert Path(linked.entries[0].options["data"]).exists(), "beside the folder that the link leads to"


def test_own_suites_have_names_and_hide_none_of_famclis(capsys: pytest.CaptureFixture[str]) -> None:
    write_suite("suites/mine.yaml", PASSKEY, summary="what I look at")
    Path("suites/broken.yaml").write_text("tasks: [")
    told: list[str] = []
    bundled = {suite.name for suite in list_suites(told.append)} - {"mine"}
    assert find_suite("mine").entries[0].options == {"lengths": "400", "trials": "1"}
    assert any(line.startswith("left out: suite suites/broken.yaml") for line in told)
    assert main(["list", "tasks"]) == 0
    out, err = capsys.readouterr()
    assert "  mine: what I look at (suites/mine.yaml)" in out and "left out: suite suites/broken.yaml" in err
    write_suite("suites/quick.yaml", PASSKEY)
    assert {suite.name for suite in list_suites(told.append)} == bundled | {"mine"}
    assert any("two suites are called 'quick'" in line for line in told)
    with pytest.raises(UserError, match=r"two suites are called 'quick': .* suites/quick.yaml"):
        find_suite("quick")
    assert len(find_suite("suites/quick.yaml").entries) == 1
    with pytest.raises(UserError, match="unknown suite 'mien'") as error:
        find_suite("mien")
    assert error.value.hint == "did you mean mine?"
    write_suite("beside.yml", PASSKEY)
    with pytest.raises(UserError, match="unknown suite 'beside'") as error:
        find_suite("beside")
    assert error.value.hint == "did you mean the file? --suite beside.yml"


@pytest.mark.parametrize(
    ("tasks", "fields", "message"),
    [
        ([{**PASSKEY, "limt": 3}], {}, "field 'tasks[0]': 'limt'\nhint: did you mean limit"),
        ([PASSKEY], {"model": ["fam-tiny"]}, "'model'\nhint: did you mean models"),
        ([{"task": "passkye"}], {}, "suite s.yaml: unknown task 'passkye'"),
        ([{"task": "mine"}], {}, "; one in a file of your own: --plugin FILE.py"),
        (
            [{"task": "./mine.py:Mine"}],
            {},
            "'./mine.py:Mine' is a file, and a suite executes nothing\nhint: ",
        ),
        ([{"task": "mine.py"}], {}, "and type --plugin mine.py"),
        ([{"task": "passkey", "options": {"lenghts": "1k"}}], {}, "option of task passkey: 'lenghts'"),
        ([{"task": "passkey", "data": "sample"}], {}, "unknown option of task passkey: 'data'"),
        ([{**PASSKEY, "limit": 0}], {}, "'limit' must be at least 1"),
        ([{"task": "pg19", "data": "a", "options": {"data": "b"}}], {}, "the data is given twice"),
        ([], {}, "'tasks' must be a list with at least one entry"),
        ([{"task": "pg19", "data": "a\0b"}], {}, "it has a null character"),
        ([PASSKEY], {"models": ["a\0b"]}, "it has a null character"),
        ([{"task": "pg19", "data": "nowhere.jsonl"}], {}, "no file or directory 'nowhere.jsonl'"),
    ],
)
def test_what_is_wrong_with_a_suite_is_named(
    tasks: list[dict[str, Any]], fields: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_suite("s.yaml", *tasks, **fields)
    Path("mine.py").write_text("raise SystemExit('a suite has executed a file')")
    assert main(["eval", "--suite", "s.yaml", "--model", "fam-tiny"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ("{lengths: 1k,4k, trials: 1}", "lengths: [1k, 4k]"),
        ("{trials: 1, lengths: 1k,4k,16k}", "lengths: [1k, 4k, 16k]"),
        ("{lengths: 1024,4096}", "lengths: [1024, 4096]"),
    ],
)
def test_a_list_without_brackets_is_told_how_to_be_one(options: str, hint: str) -> None:
    Path("s.yaml").write_text(f"tasks:\n  - {{task: passkey, options: {options}}}\n")
    with pytest.raises(UserError, match=r"suite s\.yaml: option 'lengths' has several values") as error:
        find_suite("s.yaml")
    assert error.value.hint == f"a list stands in brackets: {hint}"
    Path("s.yaml").write_text(f"tasks:\n  - {{task: passkey, options: {{{hint}}}}}\n")
    assert find_suite("s.yaml").entries[0].options == {"lengths": hint[10:-1].replace(" ", "")}
    Path("s.yaml").write_text("tasks:\n  - task: passkey\n    options:\n      lengths: 1k,4k\n")
    assert find_suite("s.yaml").entries[0].options == {"lengths": "1k,4k"}


@pytest.mark.parametrize("text", ["null", "[1]", "tasks: 3", "tasks: [null, 3, {task: passkey, options: 3}]"])
def test_a_file_of_another_shape_is_refused(text: str) -> None:
    Path("s.yaml").write_text(text)
    with pytest.raises(UserError, match=r"suite s\.yaml"):
        find_suite("s.yaml")


def test_suites_that_name_other_models_are_run_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    files = [write_suite(f"{name}.yaml", PASSKEY, models=[name]) for name in ("fam-tiny", "bswa-tiny")]
    assert main(["eval", "--suite", files[0], "--suite", files[1]]) == 2
    assert "the suites fam-tiny.yaml and bswa-tiny.yaml name other models" in capsys.readouterr().err
    assert main(["eval", "--suite", write_suite("bare.yaml", PASSKEY)]) == 2
    assert "no model given" in capsys.readouterr().err


def test_an_ordinary_checkpoint_runs_what_of_a_suite_fits_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Full attention, trained on 600 tokens; nothing is left out of what was asked for by its length."""
    save_hub_model(Path("llama"), max_position_embeddings=600)
    rows = [{"short_book_title": "T", "url": f"http://example.org/{n}", "text": "the key " * n} for n in (50, 900)]
    Path("books.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = write_suite(
        "s.yaml",
        {"task": "passkey", "options": {"lengths": "400,64k", "trials": 1}},
        {"task": "passkey", "options": {"lengths": "64k", "trials": 1}},
        {"task": "pg19", "data": "books.jsonl"},
    )
    command = ["eval", "--suite", file, "--model", "llama", "--json"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [(run["task"], run["left_out"][0]["what"], run["left_out"][0]["samples"]) for run in found["runs"]] == [
        ("passkey", "length 65536, position start", 1),
        ("pg19", "document 900", 1),
    ]
    assert [json.loads(Path(run["path"]).read_text())["left_out"] for run in found["runs"]] == [
        run["left_out"] for run in found["runs"]
    ]
    ((model, task),) = [(one["model"], one["task"]) for one in found["left_out"]]
    assert (model, task) == ("llama", "passkey")
    assert err.count("left out") == 3, "a line each"
    for run in found["runs"]:  # what a report says to type makes the same run, and leaves out the same
        words = shlex.split(rerun_command(load_record(Path(run["path"]))))
        assert main([*words[1:], "--json"]) == 0, capsys.readouterr().err
        (again,) = json.loads(capsys.readouterr().out)["runs"]
        assert (again["run_id"], again["left_out"]) == (run["run_id"], run["left_out"])
    assert main([*words[1:], "--max-context", "600"]) == 2
    assert "--leave-out goes by the context of the model" in capsys.readouterr().err
    assert main(command[:-1]) == 0
    assert "1 samples (document 900)" in capsys.readouterr().out
    for wish in (["-o", "lengths=64k"], ["--max-context", "500"]):
        assert main([*command, *wish]) == 2
        assert "more than the context of" in capsys.readouterr().err
    assert main(["eval", "--task", "pg19", "--data", "books.jsonl", "--model", "llama"]) == 2
    assert "more than the context of 600" in capsys.readouterr().err
    long = write_suite("long.yaml", {"task": "passkey", "options": {"lengths": "64k", "trials": 1}})
    assert main(["eval", "--suite", long, "--model", "llama"]) == 2
    assert "nothing of the suite fits the model llama" in capsys.readouterr().err
