"""Demonstrations: drawn from the train split by seed, the same before all prompts, read once, and part of the run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from asked_samples import answers
from famcli.tasks.narrativeqa import NarrativeQA
from famcli.tasks.qasper import Qasper
from famcli.tasks.quality import Quality
from famcli.tasks.shots import ShotTask
from famcli.tasks.xlsum import XLSum
from small_runs import small_model

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.evaluation.kept_prompts import prompt_of
from famcli.evaluation.record import RunRecord
from famcli.evaluation.runner import evaluate
from famcli.task import Choose, Generate, Prompt, Sample


def longbench(document: int, question: int, split: str) -> dict[str, Any]:
    name = f"{split}{document}"
    text = f"The {split} text {document}."
    return {"_id": f"{name}-{question}", "context": text, "input": f"Which {question}?", "answers": [f"It\nis {name}"]}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two documents to ask about, and five, two questions each, to show."""
    folder = tmp_path / "data"
    write(folder / "validation.jsonl", (longbench(d, q, "dev") for d in range(2) for q in range(2)))
    write(folder / "train.jsonl", (longbench(d, q, "train") for d in range(5) for q in range(2)))
    return folder


def make(data: Path | str, kind: type[ShotTask] = NarrativeQA, **options: str) -> ShotTask:
    return kind.from_options({"data": str(data), **options})


def samples(task: ShotTask, seed: int = 0, limit: int | None = None) -> list[Sample]:
    return task.samples(ByteTokenizer(), seed, limit)


def prompt(sample: Sample) -> Prompt:
    request = sample.request()
    assert isinstance(request, Generate | Choose)
    return request.prompt


def text(sample: Sample) -> str:
    return "".join(map(str, prompt(sample).segments))


def test_they_stand_before_the_question_in_its_words(data: Path) -> None:
    plain, shown = (samples(make(data, shots=shots)) for shots in ("0", "2"))
    for without, sample in zip(plain, shown, strict=True):
        assert text(sample).endswith(text(without)) and "shots" not in without.details
        names = str(sample.details["shots"]).split(", ")
        before = ""
        for name in names:
            document, number = name.removeprefix("train").split("-")
            row = longbench(int(document), int(number), "train")
            before += f"{row['context']}\n\nQuestion: {row['input']}\nAnswer: It is train{document}\n\n"
        assert text(sample) == before + text(without)
        assert len({name[:6] for name in names}) == 2, "no document is shown twice"


def test_the_seed_draws_them_and_fewer_are_the_first(data: Path) -> None:
    def names(shots: int, seed: int) -> list[str]:
        (found,) = {sample.details["shots"] for sample in samples(make(data, shots=str(shots)), seed)}
        return str(found).split(", ")

    assert names(4, 1)[:2] == names(2, 1)
    for seed in range(8):
        assert len({name[:6] for name in names(4, seed)}) == 4, "no document is shown twice"
    drawn = {tuple(names(2, seed)) for seed in range(12)}
    assert len(drawn) > 5 and {name[:6] for found in drawn for name in found} == {f"train{n}" for n in range(5)}


@pytest.mark.parametrize("kind", [Quality, Qasper, XLSum])
def test_other_tasks_show_their_right_answers(tmp_path: Path, kind: type[ShotTask]) -> None:
    rows: dict[type[ShotTask], Any] = {
        Quality: lambda n: {
            "article": f"Story {n}.",
            "question": "Where?",
            "options": ["a", f"right {n}", "c", "d"],
            "answer": 1,
        },
        Qasper: lambda n: {"context": f"Story {n}.", "input": "Where?", "answers": [f"right {n}"], "_id": str(n)},
        XLSum: lambda n: {
            "id": str(n),
            "language": ("thai", "turkish")[n % 2],
            "text": f"Story {n}.",
            "summary": f"right {n}",
        },
    }
    write(tmp_path / "dev.jsonl", map(rows[kind], range(2)))
    write(tmp_path / "train.jsonl", map(rows[kind], range(2, 12)))
    for number, sample in enumerate(samples(make(tmp_path, kind, shots="3"))):
        parts = re.findall(r"Story (\d+)\.", text(sample))
        assert len(set(parts)) == 4 and parts[-1] == str(number)
        assert re.findall(r"(?:Answer|Summary): (.+)\n\nStory", text(sample)) == [f"right {n}" for n in parts[:-1]]
        if kind is XLSum:
            assert {int(n) % 2 for n in parts} == {number % 2}, "they are in the language that is asked"


def test_what_is_asked_about_is_not_shown(data: Path) -> None:
    write(data / "train.jsonl", (longbench(d, q, ("dev", "train")[d > 1]) for d in range(4) for q in range(2)))
    assert {str(s.details["shots"]).replace("-1", "-0") for s in samples(make(data, shots="2"))} <= {
        "train2-0, train3-0",
        "train3-0, train2-0",
    }
    with pytest.raises(UserError, match=r"shots=3 needs as many documents .* has 2") as error:
        samples(make(data, shots="3"))
    assert error.value.hint == "-o shots=2, or -o shots_data=PATH names other rows"


def run(results: Path, data: Path, **options: str) -> RunRecord:
    task = make(data, **options)
    return evaluate(small_model(), task, results=results)


def test_they_are_read_once_with_the_document(tmp_path: Path, data: Path) -> None:
    """The answers are those of asking one by one."""
    together = run(tmp_path / "together", data, shots="2")
    entries = answers(together.path)
    header = len(text(samples(make(data, shots="2"))[0])) - len(text(samples(make(data))[0]))
    document = len("The dev text 0.")
    assert {entry["shared_tokens"] for entry in entries.values()} == {header + document}
    task = make(data, shots="2")
    single = [
        Sample(s.id, {}, s.reference, s.request, s.score, document=None, details=s.details) for s in samples(task)
    ]
    task.samples = lambda *_: single  # type: ignore[method-assign]
    alone = answers(evaluate(small_model(), task, results=tmp_path / "alone", batch_size=1).path)
    assert {entry["shared_tokens"] for entry in alone.values()} == {0}
    for name, entry in entries.items():
        assert entry["prompt_sha256"] == alone[name]["prompt_sha256"]
        assert entry["output"] == alone[name]["output"]


def test_a_cut_document_keeps_what_is_shown(tmp_path: Path, data: Path) -> None:
    long = [{**longbench(0, q, "dev"), "context": "x" * 900} for q in range(2)]
    write(data / "validation.jsonl", long)
    bounds: dict[str, Any] = {"max_context": 1000, "truncate": "left", "keep_prompts": True}
    record = evaluate(small_model(), make(data, shots="1"), results=tmp_path / "r", **bounds)
    for name in answers(record.path):
        kept = prompt_of(record.path, name)
        assert kept is not None
        assert kept[0].before.startswith("The train text") and kept[0].before.endswith("\n\n")
        assert set(kept[1]) == {"x"} and len(kept[1]) % 128 == 0


def test_headers_that_differ_are_refused(tmp_path: Path) -> None:
    from asked_samples import Asks

    def sample(header: str) -> Sample:
        asked = Prompt((header, "text", header), document=1, same_start=True)
        return Sample(header, {}, "", lambda: Generate(asked, 1), lambda _: {"length": 1.0}, document="d")

    with pytest.raises(UserError, match="sample b: something else stands before document 'd'"):
        evaluate(small_model(), Asks([sample("a"), sample("b")]), results=tmp_path)


def test_the_run_knows_what_they_were_drawn_from(tmp_path: Path, data: Path) -> None:
    plain, one, two = (
        run(tmp_path / "r", data),
        run(tmp_path / "r", data, shots="1"),
        run(tmp_path / "r", data, shots="2"),
    )
    assert len({plain.run_id, one.run_id, two.run_id}) == 3
    assert "shots" not in plain.task["options"] and two.task["options"]["shots"] == 2
    told = (two.task["data"] or {})["shots_data"]  # type: ignore[typeddict-item]
    assert told["rows"] == 10 and told["sha256"] != (plain.task["data"] or {})["sha256"]
    write(data / "train.jsonl", (longbench(d, q, "train") for d in range(6) for q in range(2)))
    assert run(tmp_path / "r", data, shots="2").run_id != two.run_id
    assert run(tmp_path / "r", data).run_id == plain.run_id


def test_other_rows_may_be_given(tmp_path: Path, data: Path) -> None:
    other = write(tmp_path / "mine.jsonl", [longbench(0, 0, "mine")])
    (found,) = {s.details["shots"] for s in samples(make(data, shots="1", shots_data=str(other)))}
    assert found == "mine0-0"
    first = run(tmp_path / "r", data, shots="1", shots_data=str(other))
    moved = write(tmp_path / "elsewhere.jsonl", [longbench(0, 0, "mine")])
    assert run(tmp_path / "r", data, shots="1", shots_data=str(moved)).run_id == first.run_id
    with pytest.raises(UserError, match="shots_data is given, and no demonstrations are wanted"):
        make(data, shots_data=str(other))


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("validation.jsonl", "shots=1 needs a train split: there is no split train in validation.jsonl"),
        ("rows.jsonl", "no name of a file in rows.jsonl says that it is of one"),
        ("sample", "the built-in sample has none"),
    ],
)
def test_without_a_train_split_it_says_how_to_give_one(data: Path, where: str, words: str) -> None:
    write(data / "rows.jsonl", [longbench(0, 0, "dev")])
    task = make(where if where == "sample" else data / where, shots="1")
    with pytest.raises(UserError, match=words) as error:
        samples(task)
    assert str(error.value.hint).endswith("-o shots_data=PATH names rows for it")


@pytest.mark.parametrize("typed", ["-1", "1.5", "1000", "two", ""])
def test_their_number_is_a_whole_number(data: Path, typed: str) -> None:
    with pytest.raises(UserError, match="option 'shots' must be a whole number from 0 to 999"):
        make(data, shots=typed)
