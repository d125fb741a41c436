"""The document tasks as a user runs them: on the sample everywhere, on real records where they are."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from famcli.tasks.documents import DocumentTask
from famcli.tasks.questions import QuestionTask
from small_runs import small_model

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.cli.main import main
from famcli.evaluation.plan import measure, plan
from famcli.evaluation.runner import evaluate
from famcli.evaluation.suites import find_suite
from famcli.task import load_task

REAL = Path(__file__).parent.parent.parent / "shared" / "data"
TASKS = ["isabelle", "narrativeqa", "pg19", "qasper", "quality", "xlsum"]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_runs_on_its_sample(name: str, tmp_path: Path) -> None:
    task = load_task(name, {"data": "sample"})
    record = evaluate(small_model(), task, results=tmp_path)
    assert record.status == "finished"
    assert record.task["data"] is not None
    assert (record.task["data"]["source"], record.task["data"]["rows"] > 0) == ("sample", True)
    assert next(iter(record.metrics)) == task.metrics[0].name
    paper = [metric.name for metric in task.metrics if metric.paper]
    assert paper == [task.metrics[0].name], "the headline is the paper's metric"
    sharing = isinstance(task, QuestionTask)
    assert (record.cost["tokens_read_alone"] > 2 * record.cost["tokens_read"]) == sharing


def test_a_suite_of_all_tasks_runs_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The cheap part of ``--suite quick``: the suite itself takes longer than a test should."""
    arguments = ["eval", "--model", "fam-tiny,block_size=64", "--data", "sample", "--limit", "1", "--json"]
    arguments += [word for name in ("passkey", *TASKS) for word in ("--task", name)]
    arguments += ["-o", "lengths=512", "-o", "trials=1", "--output", str(tmp_path)]
    assert main(arguments) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["task"] for run in runs] == ["passkey", *TASKS]


def test_without_data_the_choices_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAMCLI_DATA", str(tmp_path))
    assert main(["eval", "--task", "quality", "--model", "fam-tiny", "--output", str(tmp_path / "results")]) == 2
    errors = capsys.readouterr().err
    assert all(choice in errors for choice in ("--data sample", "--data hub", "--data PATH"))
    assert not (tmp_path / "results").exists()


def test_the_suite_of_the_paper_says_where_its_data_comes_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = find_suite("paper")
    tasks = [load_task(entry.task, entry.options) for entry in suite.entries]
    alone = [task.name for task in tasks if isinstance(task, DocumentTask) and task.hub is None]
    assert alone == ["isabelle"]
    assert "--data hub --data isabelle=DIR" in suite.summary
    monkeypatch.setenv("FAMCLI_DATA", str(tmp_path))
    assert main(["eval", "--suite", "paper", "--model", "fam-tiny", "--data", "hub"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: task isabelle has no data on the hub"
    assert "--data isabelle=PATH" in hint and "*.thy" in hint


def test_files_that_are_left_out_are_told_on_the_command_line(tmp_path: Path) -> None:
    """In a process of its own, whose logging nobody has set up."""
    row = {"short_book_title": "T", "url": "http://example.org/1", "publication_date": 1900, "text": "one"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (tmp_path / "more.tsv").write_text("no data")
    program = "import sys; from famcli.cli.main import main; sys.exit(main(sys.argv[1:]))"
    process = [sys.executable, "-c", program, "data", "check", "pg19", "--data", str(tmp_path), "--json"]
    done = subprocess.run(process, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["fits"]
    (warning,) = done.stderr.splitlines()
    assert warning.startswith(f"warning: 1 file(s) in {tmp_path} left out: more.tsv; ")


def test_with_several_tasks_an_error_of_the_data_names_its_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"short_book_title": "T", "url": "http://example.org/1", "publication_date": 1900, "text": "one"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    tasks = ["--task", "pg19", "--task", "quality"]
    assert main(["eval", *tasks, "--model", "fam-tiny", "--data", str(tmp_path), "--output", str(tmp_path / "r")]) == 2
    assert "error: task quality: rows.jsonl, line 1: field 'questions'" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_full_attention_beyond_what_was_trained_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "short_book_title": "A",
        "url": "http://example.org/7",
        "publication_date": 1900,
        "text": "a long book " * 400,
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    arguments = [
        "eval",
        "--task",
        "pg19",
        "--data",
        str(tmp_path / "rows.jsonl"),
        "--output",
        str(tmp_path / "results"),
    ]
    arguments += ["--model", "bswa-tiny,attention=full"]
    assert main(arguments) == 2
    assert "more than the context of 4,096" in capsys.readouterr().err
    assert main([*arguments, "--truncate", "right"]) == 0
    assert main([*arguments, "--max-context", "5000"]) == 0


def test_each_task_may_have_data_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = {"short_book_title": "A", "url": "http://example.org/7", "publication_date": 1900, "text": "one book"}
    (tmp_path / "books=new.jsonl").write_text(json.dumps(book) + "\n")
    arguments = ["eval", "--model", "bswa-tiny", "--output", str(tmp_path / "results"), "--json"]
    arguments += ["--task", "isabelle", "--task", "pg19", "--data", "sample"]
    assert main([*arguments, "--data", f"pg19={tmp_path}/books=new.jsonl"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    records = [json.loads(Path(run["path"]).read_text()) for run in runs]
    assert [record["task"]["data"]["source"] for record in records] == ["sample", "path"]
    assert records[1]["cost"]["tokens_read"] == len("one book")
    for wrong in (["pg19=sample", "pg19=hub"], ["sample", "hub"]):
        given = [word for source in wrong for word in ("--data", source)]
        assert main([*arguments[:-2], *given]) == 2
        assert "given twice" in capsys.readouterr().err
    assert main(["eval", "--model", "bswa-tiny", "--task", "passkey", "--data", "passkey=sample"]) == 2
    assert "no task here takes data: passkey" in capsys.readouterr().err


def test_a_folder_of_folders_serves_every_task(tmp_path: Path) -> None:
    for name, field in (("pg19", "one"), ("isabelle", "two")):
        (tmp_path / name).mkdir()
        row = {"short_book_title": field, "url": f"http://example.org/{field}", "publication_date": 1900, "text": field}
        if name == "isabelle":
            row = {"id": field, "entry": field, "text": field}
        (tmp_path / name / "rows.jsonl").write_text(json.dumps(row) + "\n")
    for name, field in (("pg19", "one"), ("isabelle", "two")):
        (sample,) = load_task(name, {"data": str(tmp_path)}).samples(ByteTokenizer(), 0, None)
        request: Any = sample.request()
        assert request.text == field


@pytest.mark.parametrize(
    ("name", "files", "questions", "documents"),
    [
        ("narrativeqa", ("documents.jsonl.gz", "qas_all_no_text.jsonl.gz"), 411, 14),
        ("quality", ("quality_original_schema.jsonl.gz",), 125, 10),
    ],
)
def test_real_documents_are_read_once(name: str, files: tuple[str, ...], questions: int, documents: int) -> None:
    """At most 1.05 times documents, questions and options, each once; here it is exactly them."""
    paths = [REAL / name / file for file in files]
    if not all(path.exists() for path in paths):
        pytest.skip("the real records are not here")
    task = load_task(name, {"data": ",".join(map(str, paths))})
    assert isinstance(task, QuestionTask)
    planned = measure(task.samples(ByteTokenizer(), 0, None), ByteTokenizer(), None)
    groups = plan(planned, 16, ())
    assert (len(planned), len(groups)) == (questions, documents)
    once = sum(len(text.encode()) for text in task.content.documents.values())
    rest = sum(p.own_tokens for p in planned)
    assert sum(group.tokens for group in groups) == once + rest
    assert rest < once
    alone = sum(p.prompt_tokens * p.requests + p.option_tokens for p in planned)
    assert alone > 10 * (once + rest)


@pytest.mark.slow
def test_memory_of_a_document_is_its_tokens_and_likelihoods(tmp_path: Path) -> None:
    """A token more takes under 24 bytes: 8 are its id, 5 what is known of it, 5 their copy for the kept state.

    Each reading is a process of its own. glibc's heap alone would go up and down by 50 MB; so every larger piece is
    mapped by itself here, and given back as soon as it is free.
    """
    sizes, peaks = (100_000, 600_000), []
    for size in sizes:
        file = tmp_path / f"{size}.jsonl.gz"
        text = "".join(f'lemma l{i}: "f {i} = g {i}" by (simp add: h{i % 7}_def)\n' for i in range(size // 40))[:size]
        file.write_bytes(gzip.compress(json.dumps({"id": "a", "entry": "a", "text": text}).encode()))
        program = "import sys; from famcli.cli.main import main; sys.exit(main(sys.argv[1:]))"
        process = [sys.executable, "-c", program, "eval", "--task", "isabelle", "--model", "bswa-tiny", "--json"]
        process += ["--data", str(file), "--output", str(tmp_path / str(size))]
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(process, capture_output=True, text=True, check=True, env=environment)
        (run,) = json.loads(done.stdout)["runs"]
        record = json.loads(Path(run["path"]).read_text())
        assert record["cost"]["tokens_read"] == size
        peaks.append(record["cost"]["peak_memory_bytes"])
    assert peaks[1] - peaks[0] < 24 * (sizes[1] - sizes[0])
