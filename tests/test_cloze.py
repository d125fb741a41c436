"""Questions made from any text, and facts told in many words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from small_models import small_config

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.cli.main import main
from famcli.training.cloze import GAP, Cloze, draw_clozes
from famcli.training.facts import FORMS, draw_fact, draw_filler
from famcli.training.material import Material, load_documents
from famcli.training.recipe import KeyPlaces, Mixture, Phase, Recipe
from famcli.training.sources import KeyInFiller

TOKENIZER = ByteTokenizer()


def story(seed: int, sentences: int = 120) -> str:
    """Sentences in paragraphs, each with a name and a number."""
    rng = np.random.default_rng(seed)
    names = ["Anna", "Boris", "Clara", "Dora", "Emil", "Franz"]
    lines = [
        f"On that day the old captain met {names[rng.integers(6)]} and counted {rng.integers(100, 1000)} ships."
        + ("\n\n" if i % 5 == 4 else " ")
        for i in range(sentences)
    ]
    return "".join(lines)


def test_the_text_has_what_is_missing() -> None:
    text = story(0)
    clozes = list(draw_clozes(text, (500, 2000), 3, np.random.default_rng(0)))
    assert len({c.document for c in clozes}) > 3
    at = 0
    for cloze in clozes:
        assert cloze.document in text and 250 <= len(cloze.document) <= 2000
        at = text.index(cloze.document, at)
        sentence = re.fullmatch(r'Which word is missing\? "(.*)"', cloze.question)
        assert sentence and sentence[1].count(GAP) == 1
        assert sentence[1].replace(GAP, cloze.answer) in " ".join(cloze.document.split())
        assert cloze.answer not in cloze.question
        assert cloze.answer.isdigit()


@pytest.mark.parametrize(
    "passage",
    [
        "It rained all day and nobody went out to look at the sea there.",
        "They went away. Nobody who lived in that house was ever seen again there.",
        "The captain, And only he, knew where the ship was and where it went to.",
        "They told Anna, who was the sister of Anna, that it was over for all of them.",
        "He met Anna.",
    ],
    ids=["no name", "only at the beginning", "a common word", "named twice", "too short"],
)
def test_what_the_sentence_itself_tells_is_not_asked(passage: str) -> None:
    assert not list(draw_clozes(passage, (1, 1000), 9, np.random.default_rng(0)))
    askable = passage + " In the end the captain sailed to Norway with all his men and ships."
    assert [c.answer for c in draw_clozes(askable, (1, 1000), 9, np.random.default_rng(0))] == ["Norway"]


def test_command_writes_what_training_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    books, file = tmp_path / "books", tmp_path / "out" / "cloze.jsonl"
    books.mkdir()
    for i in range(2):
        (books / f"{i}.txt").write_text(story(i), encoding="utf-8")
    typed = ["data", "cloze", "--text", str(books), "--output", str(file), "--shortest", "500", "--longest", "2000"]
    assert main([*typed, "--limit", "4"]) == 0
    first = file.read_text(encoding="utf-8")
    records = [Cloze(**json.loads(line)) for line in first.splitlines()]
    said = f"{len(records)} questions about 4 passages in {file}"
    assert len({r.document for r in records}) == 4 and said in capsys.readouterr().out
    documents = load_documents(file, TOKENIZER)
    assert sorted(len(q) for q in documents.questions) == [4, 4, 4, 4] and documents.shortest >= 250
    assert main([*typed, "--limit", "4"]) == 0 and file.read_text(encoding="utf-8") == first
    assert main([*typed, "--limit", "4", "--seed", "1"]) == 0 and file.read_text(encoding="utf-8") != first


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--text", "nowhere"], "no .txt files in nowhere"),
        (["--text", "latin"], "cannot read latin/a.txt"),
        (["--text", "good", "--output", "data/books/a.txt/b.jsonl"], "cannot write data/books/a.txt/b.jsonl"),
        (["--longest", "1000"], "--longest (1000) is less than --shortest (2000)"),
        ([], "nothing can be asked about the texts in"),
    ],
)
def test_what_cannot_be_made_leaves_the_file_there(
    more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/books").mkdir(parents=True)
    (tmp_path / "data/books/a.txt").write_text("word " * 1000)
    for name, text in (("latin", "caf\xe9".encode("latin-1")), ("good", story(0).encode())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_bytes(text)
    (tmp_path / "data/cloze.jsonl").write_text("kept")
    assert main(["data", "cloze", *more]) == 2
    assert said in capsys.readouterr().err and (tmp_path / "data/cloze.jsonl").read_text() == "kept"


def test_facts_are_told_before_they_are_asked_for() -> None:
    answers, told = set(), ""
    for seed in range(300):
        fact = draw_fact(np.random.default_rng(seed))
        assert fact.answer in fact.line and fact.answer not in fact.question
        assert "{" not in fact.line + fact.question
        answers.add(fact.answer)
        told += fact.line + "\n"
    assert len(answers) > 150
    for line, _, _ in FORMS:
        assert max(re.split(r"\{\w+\}", line), key=len) in told


def test_sources_of_facts_are_half_in_text_and_ask_for_what_they_told() -> None:
    corpus = np.array(TOKENIZER.encode("In the beginning. " * 99), np.uint16)
    material = Material(TOKENIZER, corpus)
    places = KeyPlaces(at_once=0.5, soon=0.25, later=0.25)
    phase = Phase(steps=1, mixture=Mixture(fact=1), block_size=64, blocks=1, learning_rate=0.1, key_places=places)
    recipe = Recipe(seed=0, phases=(phase,), model=small_config("fam", vocab_size=257))
    in_text = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        source = material.draw("fact", rng, phase, recipe)
        assert isinstance(source, KeyInFiller) and source.asking == "recall"
        (question,) = source.ask(source.known_from, 1, rng)
        read = TOKENIZER.decode(source.tokens(0, source.known_from).tolist())
        assert TOKENIZER.decode(question.answer.tolist()).strip() in read.splitlines()[-1]
        in_text += "beginning" in TOKENIZER.decode(source.tokens(source.known_from, 40).tolist())
    assert 30 <= in_text <= 70
    fillers = {draw_filler(np.random.default_rng(seed)) for seed in range(50)}
    assert len(fillers) == 50 and all(3 <= f.count(". ") <= 8 for f in fillers)
