"""``famcli data``, from what is typed to what is printed, stored and returned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from famcli.tasks import hub as hub_module

from famcli.cli.main import main

PLUGIN = """
from dataclasses import dataclass

from famcli.task import Generate, MetricSpec, Prompt, Sample, option
from famcli.tasks.documents import DocumentOptions, DocumentTask
from famcli.tasks.hub import HubDataset


@dataclass(frozen=True)
class Options(DocumentOptions):
    shortest: int = option("1", "least characters of a story", int)


class Stories(DocumentTask):
    name, version, summary = "stories", 1, "questions about stories"
    metrics = (MetricSpec("accuracy"),)
    Options = Options
    hub = HubDataset("owner/stories", "main", ("{split}/*.jsonl",), "CC BY 4.0", "Author 2020")

    def samples(self, tokenizer, seed, limit):
        samples = []
        for row in self.dataset.rows:
            story, question = row.text("document.text"), row.text("question")
            if len(story) < self.options.shortest:
                row.fail("document.text", "is too short")
            request = Generate(Prompt((story, question), document=0), 8)
            name = row.text("document.id")
            samples.append(Sample(row.where, {}, "", lambda r=request: r, lambda a: {}, document=name))
        return samples
"""
STORIES = {"a": "Es war einmal ein Bär.", "b": "Once upon a time there was a very old tortoise."}
ROWS: list[dict[str, Any]] = [
    {"document": {"id": "a", "text": STORIES["a"]}, "question": "Wer?", "answers": [{"text": "Bär"}]},
    {"document": {"id": "b", "text": STORIES["b"]}, "question": "Who?", "answers": [{"text": "x"}, {"text": None}]},
    {"document": {"id": "b", "text": STORIES["b"]}, "question": "How old?", "hard": 1, "answers": []},
]


@pytest.fixture(autouse=True)
def stories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed task of that name, its repository in ``repository``, and its rows in ``rows.jsonl``."""
    (tmp_path / "famcli_stories_plugin.py").write_text(PLUGIN)
    info = tmp_path / "famcli_stories-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: famcli-stories\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[famcli.tasks]\nstories = famcli_stories_plugin:Stories\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAMCLI_DATA", str(tmp_path / "store"))
    write_rows(Path("rows.jsonl"), ROWS)
    write_rows(Path("repository/validation/0000.jsonl"), ROWS)
    write_rows(Path("repository/test/0000.jsonl"), ROWS[:1])
    names = ["validation/0000.jsonl", "test/0000.jsonl", "load.py"]
    monkeypatch.setattr(hub_module, "_list_repository", lambda repo, revision: ("c" * 40, names))
    monkeypatch.setattr(
        hub_module, "_download", lambda repo, commit, name, folder: Path(shutil.copy(f"repository/{name}", folder))
    )


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def check(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> Any:
    """What ``data check stories --json`` prints; it must return ``code``."""
    assert main(["data", "check", "stories", "--json", *args]) == code
    return json.loads(capsys.readouterr().out)


def test_check_says_what_a_task_finds(capsys: pytest.CaptureFixture[str]) -> None:
    found = check(capsys, "--data", "rows.jsonl")
    assert found["fits"] and found["problem"] is None
    assert (found["rows"], found["samples"], found["documents"]) == (3, 3, 2)
    assert (found["longest_tokens"], found["longest_document"]) == (len(STORIES["b"].encode()), "b")
    assert found["tokenizer"] == "bytes"
    assert found["missing"] == {"answers[].text": 2, "hard": 2}
    assert (found["data"]["source"], found["data"]["name"]) == ("path", "rows.jsonl")


def test_check_in_words_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "stories", "--data", "rows.jsonl"]) == 0
    out = capsys.readouterr().out
    for words in (
        "rows       3",
        "documents  2",
        f"{len(STORIES['b'])} tokens (bytes): b",
        "hard",
        "every row fits",
    ):
        assert words in out


def test_record_that_does_not_fit_is_named_and_returns_1(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(Path("bad.jsonl"), [*ROWS, {"document": {"id": "c"}, "question": "?"}])
    found = check(capsys, "--data", "bad.jsonl", code=1)
    assert not found["fits"]
    assert found["problem"] == "bad.jsonl, line 4: field 'document.text' is missing"
    assert found["missing"]["document.text"] == 1
    assert main(["data", "check", "stories", "--data", "bad.jsonl"]) == 1
    assert "does not fit: bad.jsonl, line 4" in capsys.readouterr().out
    Path("worse.jsonl").write_text('{"document"')
    assert "line 1: invalid JSON" in check(capsys, "--data", "worse.jsonl", code=1)["problem"]


WITH_DATA = [
    *("babilong", "isabelle", "longbench", "longbench2", "narrativeqa"),
    *("mrcr", "pg19", "qasper", "quality", "ruler", "xlsum"),
]


def says(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["data", "schema", *args]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("task", WITH_DATA)
def test_a_schema_is_what_data_check_accepts_and_no_more(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The example fits; without a field that may be left out it still does, without any other it does not."""
    schema = json.loads(says(capsys, task, "--json"))
    Path("example.jsonl").write_text(says(capsys, task, "--example"))
    assert json.loads(Path("example.jsonl").read_text()) == schema["example"]
    fields = {field["name"]: field for field in schema["fields"]}
    required = {name for name, field in fields.items() if field["required"]}
    assert required <= schema["example"].keys() <= fields.keys()
    filled = {"text": "x", "a whole number": 1, "true or false": True, "a list of texts": ["x"]}
    whole = {name: filled.get(field["type"]) for name, field in fields.items()} | schema["example"]

    def fits(row: dict[str, Any]) -> bool:
        write_rows(Path("row.jsonl"), [row])
        code = main(["data", "check", task, "--data", "row.jsonl"])
        out = capsys.readouterr().out
        assert ("every row fits" in out) == (code == 0)
        return code == 0

    assert fits(schema["example"]) and fits(whole)
    for name in fields:
        assert fits({other: value for other, value in whole.items() if other != name}) == (name not in required), name
        assert not fits({**schema["example"], name: [[]]}), f"{name} is of no such type"


@pytest.mark.parametrize("task", WITH_DATA)
def test_a_schema_in_words_names_every_field_and_stands_in_the_docs(
    task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text()
    example = says(capsys, task, "--example").strip()
    assert example in docs
    out = says(capsys, task)
    assert f"for example: {example}" in out
    for field in json.loads(says(capsys, task, "--json"))["fields"]:
        line = next(line for line in out.splitlines() if line.split()[0] == field["name"])
        assert field["type"] in line and field["help"] in line
        assert ("may be left out" in line) != field["required"]


def test_no_schema_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for task, problem in (("passkey", "needs no data"), ("stories", "does not say which rows"), ("storys", "unknown")):
        assert main(["data", "schema", task]) == 2
        assert problem in capsys.readouterr().err


def test_all_misfits_are_listed_up_to_twenty(capsys: pytest.CaptureFixture[str]) -> None:
    bad: list[dict[str, Any]] = [{"text": "fine"}, *({"text": i} for i in range(30))]
    write_rows(Path("books.jsonl"), bad)
    assert main(["data", "check", "pg19", "--data", "books.jsonl"]) == 1
    out = capsys.readouterr().out
    for line in range(2, 22):
        assert f"books.jsonl, line {line}: field 'text' must be text, not a whole number" in out
    assert "line 22" not in out and "in all     30 do not fit; shown are 20" in out


def test_the_data_may_be_given_as_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(capsys, "-o", "data=rows.jsonl") == check(capsys, "--data", "rows.jsonl")
    assert main(["data", "check", "stories", "--data", "rows.jsonl", "-o", "data=rows.jsonl"]) == 2
    assert "given twice" in capsys.readouterr().err


def test_what_a_missing_field_would_hold_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    extra = {**ROWS[0], "source": {"url": "x", "editors": [{"name": "y"}]}}
    write_rows(Path("more.jsonl"), [extra, *ROWS[1:]])
    assert check(capsys, "--data", "more.jsonl")["missing"] == {"answers[].text": 2, "hard": 2, "source": 2}


def test_check_says_the_way_on_and_finds_nothing_to_ask(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    article = {"article_id": "1", "article": "text", "questions": []}
    write_rows(Path("articles.jsonl"), [article])
    assert main(["data", "check", "quality", "--data", "articles.jsonl"]) == 1
    assert "does not fit: there is nothing to ask in these rows" in capsys.readouterr().out
    question = {"question": "?", "question_unique_id": "1", "options": list("abcd")}
    write_rows(Path("articles.jsonl"), [{**article, "questions": [question]}])
    assert main(["data", "check", "quality", "--data", "articles.jsonl"]) == 1
    assert "hint: use the validation split" in capsys.readouterr().out


def test_check_takes_the_options_of_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    found = check(capsys, "--data", "rows.jsonl", "-o", "shortest=30", code=1)
    assert found["problem"] == "rows.jsonl, line 1: field 'document.text' is too short"


@pytest.mark.parametrize(
    "args",
    [
        ["check", "stories", "--data", "nothing.jsonl"],
        ["check", "stories", "--data", "sample"],
        ["check", "stories"],
        ["check", "stories", "--data", "rows.jsonl", "-o", "longest=3"],
        ["check", "stories", "--data", "rows.jsonl", "--model", "no-such-model"],
        ["check", "passkey", "--data", "rows.jsonl"],
        ["check", "storys"],
        ["check"],
        ["fetch"],
        ["fetch", "passkey"],
        ["fetch", "isabelle"],
        ["fetch", "stories", "storys"],
        ["fetch", "stories", "--split", "train"],
        ["fech", "stories"],
    ],
)
def test_bad_usage_returns_2_and_stores_nothing(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *args]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.out == ""
    assert not Path("store").exists()


def test_fetched_data_is_used_without_saying_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "stories"]) == 0
    assert "3 rows, 1 files" in capsys.readouterr().out
    shutil.rmtree("repository")
    found = check(capsys)
    assert (found["rows"], found["data"]["source"], found["data"]["revision"]) == (3, "hub", "c" * 40)
    assert found["data"]["sha256"] == check(capsys, "--data", "rows.jsonl")["data"]["sha256"]


def test_fetch_says_what_it_stored(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "stories", "--split", "test", "--json"]) == 0
    (stored,) = json.loads(capsys.readouterr().out)["fetched"]
    assert (stored["task"], stored["split"], stored["repo"]) == ("stories", "test", "owner/stories")
    assert (stored["revision"], stored["rows"], list(stored["files"])) == ("c" * 40, 1, ["test/0000.jsonl"])
    assert (Path(stored["directory"]) / "test/0000.jsonl").read_text() == Path("repository/test/0000.jsonl").read_text()
    assert main(["data", "check", "stories"]) == 2, "the default split is not there"
