"""Splits beside each other are several data sets: in folders, file sets and zips; what authors publish is read."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from data_files import json_lines, write_parquet
from famcli.tasks.files import DataFile
from famcli.tasks.pg19 import PG19
from famcli.tasks.qasper import Qasper
from famcli.tasks.quality import Quality
from famcli.tasks.splits import split_of
from famcli.tasks.xlsum import XLSum

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.cli.main import main
from famcli.errors import UserError

LAYOUTS = {
    "files": "{}.jsonl",
    "valid": "data/{}-00000-of-00001.jsonl",
    "dev": "My_{}_v1.2.jsonl",
    "folders": "{}/part-0.jsonl",
    "upper case": "{}_SET.jsonl",
}
NAMES = {"valid": "valid", "dev": "dev", "upper case": "VAL"}


def row(split: str, number: int) -> dict[str, Any]:
    name = f"{split}{number}"
    return {"id": name, "pid": name, "input": f"Who ran in {name}?\n\nA dog ran.", "output": "a dog"}


def rows(split: str) -> list[dict[str, Any]]:
    return [row(split, number) for number in range({"train": 4, "validation": 3, "test": 2}[split])]


def write(folder: Path, layout: str, splits: tuple[str, ...] = ("train", "validation", "test")) -> list[Path]:
    files = []
    for split in splits:
        name = {"validation": NAMES.get(layout, "validation")}.get(split, split)
        files.append(folder / LAYOUTS[layout].format(name))
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_bytes(json_lines(rows(split)))
    return files


def asked(data: object, **options: str) -> set[str]:
    """The splits of the questions that are asked."""
    task = Qasper.from_options({"data": str(data), **options})
    return {sample.id.rstrip("0123456789") for sample in task.samples(ByteTokenizer(), 0, None)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["folder", "paths", "zip", "zips"])
def test_the_split_of_the_task_is_read_or_the_one_asked_for(tmp_path: Path, layout: str, kind: str) -> None:
    files = write(tmp_path / "a", layout)
    data: object = tmp_path / "a"
    if kind == "paths":
        data = ",".join(str(file.parent if layout == "folders" else file) for file in files)
    elif kind == "zip":
        data = tmp_path / "all.zip"
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(tmp_path))
    elif kind == "zips":
        data = tmp_path / "zips"
        data.mkdir()
        for file, split in zip(files, ("train", "validation", "test"), strict=True):
            with zipfile.ZipFile(data / f"{split}.zip", "w") as archive:
                archive.write(file, "rows.jsonl")
    assert asked(data) == {"validation"}
    for split in ("train", "validation", "test"):
        assert asked(data, split=split) == {split}
    assert asked(data, split="all") == {"train", "validation", "test"}


def test_what_is_read_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "stories", "files")
    assert main(["data", "check", "qasper", "--data", str(tmp_path / "stories")]) == 0
    assert "of the splits in stories (train, validation, test), validation is read: validation.jsonl" in caplog.text
    assert "-o split=NAME takes another" in caplog.text and "stories:validation" in capsys.readouterr().out
    assert main(["data", "check", "qasper", "--data", str(tmp_path / "stories"), "-o", "split=test"]) == 0
    assert "stories:test" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("splits", "option", "problem", "hint"),
    [
        (("train", "test"), "", "holds several splits", "-o split=train"),
        (("train",), "test", "there is no split test in a: by their names the files are of train", "-o split=train"),
        (("train", "validation"), "test", "there is no split test", "-o split=train"),
    ],
)
def test_what_is_not_there_or_not_clear_is_refused(
    tmp_path: Path, splits: tuple[str, ...], option: str, problem: str, hint: str
) -> None:
    write(tmp_path / "a", "files", splits)
    with pytest.raises(UserError, match=problem) as error:
        asked(tmp_path / "a", split=option)
    assert hint in str(error.value.hint)


def test_a_split_is_refused_where_nothing_is_said_of_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``-o split=`` is what a user says of the data, ``--split`` chooses from what it says of itself."""
    (tmp_path / "a.jsonl").write_bytes(json_lines([row("a", 1)]))
    (tmp_path / "x.thy").write_text("theory x imports Main begin end")
    for task, data in (("qasper", "a.jsonl"), ("qasper", "sample"), ("isabelle", "x.thy")):
        given = data if data == "sample" else str(tmp_path / data)
        command = ["eval", "--task", task, "--data", given, "--model", "bswa-tiny", "--split"]
        assert main([*command, "test"]) == 2
        assert "there is no split test in " in capsys.readouterr().err
    assert asked(tmp_path / "a.jsonl", split="test") == {"a"}
    check = ["data", "check", "qasper", "--data", str(tmp_path / "a.jsonl"), "--split"]
    assert (main([*check, "test"]), main([*check, "all"])) == (2, 0)
    assert main([*command[:2], "passkey", *command[5:], "test"]) == 2
    assert "--split is given, but no task here has data with splits: passkey" in capsys.readouterr().err
    assert main([*command, "test", "-o", "split=test"]) == 2
    assert "the split is given twice" in capsys.readouterr().err


def test_folders_say_the_split_of_books_and_titles_do_not(tmp_path: Path) -> None:
    """PG-19 is published as folders of text files."""
    for name in ("train/a.txt", "validation/The Test.txt", "test/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    def books(**options: str) -> list[str]:
        return [book.text for book in PG19.from_options({"data": str(tmp_path), **options}).books]

    assert books() == ["validation/The Test.txt"]
    assert books(split="test") == ["test/c.txt"]


def test_files_without_a_split_are_not_left_out_in_silence(tmp_path: Path) -> None:
    write(tmp_path / "a", "files")
    (tmp_path / "a" / "more.jsonl").write_bytes(json_lines([row("more", 1)]))
    with pytest.raises(UserError, match=r"these say no split: more\.jsonl"):
        asked(tmp_path / "a")
    assert asked(tmp_path / "a", split="test") == {"test"}
    for name in ("train", "test"):
        (tmp_path / "a" / f"{name}.jsonl").unlink()
    assert asked(tmp_path / "a") == {"validation", "more"}


def test_data_of_one_split_is_read_whatever_it_is(tmp_path: Path) -> None:
    (file,) = write(tmp_path / "a", "files", ("train",))
    assert asked(file) == asked(tmp_path / "a") == {"train"}
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "questions.jsonl").write_bytes(json_lines(rows("validation")))
    assert asked(tmp_path / "test" / "questions.jsonl", split="test") == {"validation"}, "no name says otherwise"


def test_other_tasks_take_their_split(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        news = [{"id": f"{split}{i}", "summary": "A dog ran.", "text": "A dog ran far."} for i in range(2)]
        write_parquet(tmp_path / "xlsum" / f"english_{split}.parquet", news)
        book = {"short_book_title": "b", "publication_date": 1900, "url": f"u/{split}", "text": "A dog ran far."}
        (tmp_path / f"{split}.jsonl").write_bytes(json_lines([book]))
    articles = XLSum.from_options({"data": str(tmp_path / "xlsum")}).articles
    assert [article.id for article in articles] == ["english/val0", "english/val1"]
    books = ",".join(str(tmp_path / f"{split}.jsonl") for split in ("train", "val", "test"))
    assert [book.id for book in PG19.from_options({"data": books}).books] == ["val"]
    assert [book.id for book in PG19.from_options({"data": books, "split": "test"}).books] == ["test"]


@pytest.mark.parametrize(
    ("name", "member", "split"),
    [
        ("contest.jsonl", None, None),
        ("train_test.jsonl", None, None),
        ("test/train.jsonl", None, "train"),
        ("train/a.jsonl", None, "train"),
        ("x.jsonl", "x.jsonl", "test"),
        ("qasper-dev-v0.3.json", None, "validation"),
        ("QuALITY.v1.0.1.htmlstripped.dev", None, "validation"),
    ],
)
def test_names_are_read_from_the_file_outwards(name: str, member: str | None, split: str | None) -> None:
    path = Path("here/test.zip") if member else Path("test", name)
    assert split_of(DataFile(name, path, "JSONL", member)) == split


def test_the_option_is_in_the_record_only_where_it_is_given() -> None:
    assert "split" not in Qasper.from_options({}).recorded_options()
    assert Qasper.from_options({"split": "test"}).recorded_options()["split"] == "test"
    assert PG19.from_options({}).recorded_options()["split"] == "validation"
    assert Qasper.from_options({"split": "test"}).hub.split == "test"  # type: ignore[union-attr]


# What authors publish

ARTICLE = {
    "article_id": "1",
    "article": "A dog ran far.",
    "questions": [
        {
            "question": "Who?",
            "question_unique_id": "q",
            "options": ["A", "B", "C", "D"],
            "gold_label": 2,
            "difficult": 0,
        }
    ],
}
ANSWER = {"unanswerable": False, "extractive_spans": [], "free_form_answer": "A dog", "yes_no": None}
PAPER = {
    "title": "Dogs",
    "abstract": "Of dogs.",
    "full_text": [{"section_name": "One", "paragraphs": ["They run."]}],
    "qas": [{"question": "Who runs?", "question_id": "q1", "answers": [{"answer": ANSWER}]}],
}


@pytest.mark.parametrize("zipped", [False, True])
def test_the_release_of_quality_is_read(tmp_path: Path, zipped: bool) -> None:
    line = json_lines([ARTICLE])
    data = tmp_path / "QuALITY.v1.0.1.htmlstripped.dev"
    data.write_bytes(line)
    if zipped:
        data = tmp_path / "QuALITY.v1.0.1.zip"
        with zipfile.ZipFile(data, "w") as archive:
            for split in ("train", "dev", "test"):
                stripped = line.replace(b'"q"', b'"dev-q"' if split == "dev" else b'"other"')
                archive.writestr(f"QuALITY.v1.0.1.{split}", b"<p>")
                archive.writestr(f"QuALITY.v1.0.1.htmlstripped.{split}", stripped)
    (question,) = Quality.from_options({"data": str(data)}).content.questions
    assert (question.id, question.gold) == ("dev-q" if zipped else "q", 1)


def test_the_release_of_qasper_is_read(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        (tmp_path / f"qasper-{split}-v0.3.json").write_text(json.dumps({f"{split}-paper": PAPER}))
    (tmp_path / "dataset_info.json").write_text("{}")
    content = Qasper.from_options({"data": str(tmp_path)}).content
    assert dict(content.documents) == {"dev-paper": "Dogs\n\nOf dogs.\n\nOne\nThey run."}
    assert [question.references for question in content.questions] == [("A dog",)]


def test_the_release_of_narrativeqa_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "documents.csv").write_text("document_id,set,kind,story_url\nd,valid,gutenberg,http://g\n")
    (tmp_path / "qaps.csv").write_text("document_id,set,question,answer1,answer2\nd,valid,Who?,A,B\n")
    for data in (tmp_path, tmp_path / "qaps.csv"):
        assert main(["data", "check", "narrativeqa", "--data", str(data)]) == 1
        said = "".join(capsys.readouterr())
        assert "the stories are not in it" in said and "--data hub has them" in said
