"""Sources with questions, and questions of any lengths asked at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import segments_of, small_config, small_decoder

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.training.batch import Batch
from famcli.training.losses import Tally
from famcli.training.material import Material, load_corpus, load_documents
from famcli.training.reading import Asked, read_block
from famcli.training.recipe import KeyPlaces, Mixture, Phase, Recipe
from famcli.training.sources import DocumentsFrom, Question
from famcli.training.step import _Step

TOKENIZER = ByteTokenizer()
CORPUS = np.frombuffer(bytes(range(256)) * 9, np.uint8).astype(np.uint16)
RECORDS = [
    ("The sky is blue.", "Which colour?", "blue"),
    ("A cat.\u2028It sat.", "Who sat?", "a cat"),
    ("The sky is blue.", "What is it?", "the sky"),
]


def write_records(file: Path, records: list[tuple[str, str, str]]) -> Path:
    lines = [
        json.dumps(dict(zip(("document", "question", "answer"), record, strict=True)), ensure_ascii=False)
        for record in records
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


class Pairs(ByteTokenizer):
    """A tokenizer for which some pairs of digits are one token, as in many vocabularies."""

    vocab_size = 400

    def encode(self, text: str) -> list[int]:
        ids, out = list(text.encode()), []
        while ids:
            pair = bytes(ids[:2]).decode(errors="replace")
            joined = len(pair) == 2 and pair.isdigit() and int(pair) % 3 == 0
            out.append(300 + int(pair) if joined else ids[0])
            ids = ids[2:] if joined else ids[1:]
        return out


def test_answers_of_different_lengths_are_scored_as_if_alone() -> None:
    material = Material(Pairs())
    model = small_decoder(small_config("fam", vocab_size=400, block_size=8, memory_segments=1))
    phase = Phase(steps=1, mixture=Mixture(passkey=12), block_size=8, blocks=1, learning_rate=0.1)
    recipe = Recipe(seed=0, phases=(phase,), model=model.config)
    drawn = [material.draw("passkey", np.random.default_rng(i), phase, recipe) for i in range(12)]
    questions = [source.ask(9999, 1, np.random.default_rng(0))[0] for source in drawn]
    assert len({len(q.answer) for q in questions}) > 1
    questions.append(Question(0, 0, np.arange(30), np.arange(1)))
    rows = [i % 3 for i in range(13)]
    with torch.no_grad():
        _, state = model.read(torch.randint(400, (3, 11), generator=torch.Generator().manual_seed(0)), model.start(3))
        together = Asked.of("recall", rows, questions, torch.device("cpu"))
        losses, means, right = together.score(model, together.read(model, state.index(rows)))
        alone = []
        for row, question in zip(rows, questions, strict=True):
            asked = Asked.of("recall", [row], [question], torch.device("cpu"))
            one, mean, ok = asked.score(model, asked.read(model, state.index([row])))
            alone.append((one, *mean, *ok))
    torch.testing.assert_close(losses, torch.cat([one for one, _, _ in alone]), rtol=1e-12, atol=1e-12)
    assert means == pytest.approx([mean for _, mean, _ in alone], rel=1e-12)
    assert right == [ok for _, _, ok in alone]


def test_segment_to_repeat_is_one_that_was_read() -> None:
    material = Material(TOKENIZER, CORPUS)
    phase = Phase(steps=1, mixture=Mixture(repeat_segment=1), block_size=8, blocks=1, learning_rate=0.1)
    recipe = Recipe(seed=0, phases=(phase,), segment_length=20)
    starts = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        source = material.draw("repeat_segment", rng, phase, recipe)
        (question,) = source.ask(23, 5, rng)
        assert TOKENIZER.decode(question.text.tolist()).endswith("[repeat random segment]: ")
        read = source.tokens(0, 23)
        (start,) = [i for i in range(4) if (read[i : i + 20] == question.answer).all()]
        assert (question.told_from, question.known_from) == (start, start + 20)
        starts.add(start)
    assert starts == {0, 1, 2, 3} and source.known_from == 20


def test_questions_stand_where_their_document_ends(tmp_path: Path) -> None:
    documents = load_documents(write_records(tmp_path / "qa.jsonl", RECORDS), TOKENIZER)
    for first, seen in ((0, "The sky is blue."), (1, "A cat.\u2028It sat.")):
        source = DocumentsFrom(documents, first)
        places = source.ends(0, 200)
        assert places == [p for start in range(0, 200, 7) for p in source.ends(start, min(start + 7, 200))]
        text = TOKENIZER.decode(source.tokens(0, places[0]).tolist())
        assert text == seen
        for place in places:
            for question in source.ask(place, 5, np.random.default_rng(0)):
                answer = TOKENIZER.decode(question.answer.tolist())
                whole = TOKENIZER.decode(np.concatenate((source.tokens(0, place), question.text)).tolist())
                expected = [q for d, q, a in RECORDS if f" {a}\n" == answer and whole.split("\n\n")[-2] == d]
                assert len(expected) == 1 and whole.endswith(f"\n\nQuestion: {expected[0]}\nAnswer:")
                told = source.tokens(question.told_from, place - question.told_from)
                assert TOKENIZER.decode(told.tolist()) == whole.split("\n\n")[-2]
    assert len(DocumentsFrom(documents, 0).ask(16, 1, np.random.default_rng(0))) == 1


def test_a_step_asks_about_every_document_that_ends_in_it(tmp_path: Path) -> None:
    material = Material(TOKENIZER, None, load_documents(write_records(tmp_path / "qa.jsonl", RECORDS), TOKENIZER))
    model = small_decoder(small_config("fam", vocab_size=257, memory_segments=1))
    phase = Phase(steps=1, mixture=Mixture(qa=2), block_size=8, blocks=7, learning_rate=0.1, questions=2)
    recipe = Recipe(seed=0, phases=(phase,), filler_loss_weight=0.5).with_model(model.config)
    model.reconfigure(recipe.model_at(0))
    batch = Batch(recipe, material)
    batch.begin(0, phase, first=True)
    step = _Step(model, batch, recipe, phase, 0, Tally())
    outcome = step.run()
    ends = [source.ends(0, 56) for source in batch.sources]
    answers = [
        q.answer
        for s, places in zip(batch.sources, ends, strict=True)
        for place in places
        for q in s.ask(place, 2, step.rng)
    ]
    assert outcome.losses._counts == {"filler": 2 * 56, "answer": sum(map(len, answers))}
    assert outcome.tokens > 2 * 56 and not outcome.lost
    means = outcome.losses.means()
    total = outcome.losses.total()
    assert total is not None and total.item() == pytest.approx(means["answer"] + 0.5 * means["filler"])  # type: ignore[operator]


def first_step(attention: str, segments: int, blocks: int, key_places: KeyPlaces) -> _Step:
    """Six keys, asked for at four places of a block of 160 tokens, and a model of two layers."""
    shape = {"vocab_size": 257, "layers": 2, "block_size": 160, **segments_of(attention, segments)}
    model = small_decoder(small_config(attention, **shape))
    places = {"block_size": 160, "blocks": blocks, "questions": 4, "key_places": key_places}
    phase = Phase(steps=1, mixture=Mixture(passkey=6), learning_rate=0.1, **places)  # type: ignore[arg-type]
    recipe = Recipe(seed=0, phases=(phase,), forget_above=99.0).with_model(model.config)
    batch = Batch(recipe, Material(TOKENIZER))
    batch.begin(0, phase, first=True)
    return _Step(model, batch, recipe, phase, 0, Tally())


@pytest.mark.parametrize(
    ("attention", "segments", "field", "places"),
    [("fam", 0, 10**9, 4), ("full", 0, 10**9, 4), ("bswa", 0, 160, 20), ("bswa", 1, 480, 8)],
)
def test_keys_beyond_the_receptive_field_are_not_asked_for(
    attention: str, segments: int, field: int, places: int
) -> None:
    """As the end of the answer sees them, which the question can put into the next block.

    A key that is cut by the beginning of the field is beyond it, one told again after it is not.
    """
    step = first_step(attention, segments, 5, KeyPlaces(at_once=1, soon=0, later=0, across=2))
    batch, ask, asked, left_out = step.batch, step._asked, 0, 0
    question = len("\nWhat is the pass key? The pass key is") + len(" 12345\n") - 1

    def noted(rows: list[int], ahead: int) -> list[Asked]:
        nonlocal asked, left_out
        field_from = ((ahead + question - 1) // 160 + 1) * 160 - field
        for row in rows:
            key = TOKENIZER.decode(batch.ask(row, ahead, 1, step.rng)[0].answer.tolist()).strip()
            known = TOKENIZER.decode(batch.sources[row].tokens(0, ahead).tolist()).rindex(key) >= field_from
            asked, left_out = asked + known, left_out + (not known)
            assert [a.rows for a in ask([row], ahead)] == ([[row]] if known else [])
        return ask(rows, ahead)

    step._asked = noted  # type: ignore[method-assign]
    losses = step.run().losses
    assert asked and (left_out > 0) == (attention == "bswa")
    assert losses._counts["recall"] == asked * len(" 12345\n")
    assert sum(step.tally.asked) == asked
    assert len(step._cuts(4)) == places


@pytest.mark.parametrize(("attention", "goes_on"), [("fam", True), ("bswa", False), ("full", False)])
def test_without_fam_no_key_of_an_earlier_step_is_asked_for(attention: str, goes_on: bool) -> None:
    """Memory segments would still reach the keys, had the step not begun after them."""
    step = first_step(attention, 1, 1, KeyPlaces(at_once=1, soon=0, later=0))
    for row in step.batch.rows:
        row.offset += 160
    outcome = step.run()
    assert (sum(step.tally.asked) > 0) == goes_on
    assert outcome.lost == (set() if goes_on else set(range(6)))


def test_kinds_that_weigh_nothing_are_not_computed() -> None:
    model = small_decoder(small_config("bswa", vocab_size=257))
    phase = Phase(steps=1, mixture=Mixture(passkey=1, text=1), block_size=8, blocks=2, learning_rate=0.1)
    recipe = Recipe(seed=0, phases=(phase,), text_loss_weight=0, filler_loss_weight=0, recall_loss_weight=0)
    recipe = recipe.with_model(model.config)
    batch = Batch(recipe, Material(TOKENIZER, CORPUS))
    batch.begin(0, phase, first=True)
    losses = _Step(model, batch, recipe, phase, 0, Tally()).run().losses
    assert losses.total() is None and set(losses.means().values()) == {None}


def test_side_branches_leave_the_block_as_it_was() -> None:
    model = small_decoder(small_config("fam", block_size=8, memory_segments=1))
    tokens = torch.randint(40, (2, 8), generator=torch.Generator().manual_seed(0))
    asked = Asked.of("recall", [1, 1, 0], [Question(0, 0, np.arange(5), np.arange(6))] * 3, torch.device("cpu"))
    for keep in (True, False):
        latents, state, (answers,) = read_block(model, tokens, model.start(2), [(0, []), (3, [asked])], keep)
        plain, expected = model.read(tokens, model.start(2))
        torch.testing.assert_close(latents, plain, rtol=0, atol=1e-12)
        torch.testing.assert_close(state.layers[-1]["fam"], expected.layers[-1]["fam"], rtol=0, atol=1e-12)
        _, before = model.read(tokens[:, :3], model.start(2))
        read, _ = model.read(torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4]] * 2), before)
        torch.testing.assert_close(answers[[0, 2]], read[[1, 0], 4:], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no questions"),
        ("{", "line 1 is not valid JSON"),
        ('{"document": "a", "question": "b", "answer": "c"}\n[]', "line 2 must be a mapping of fields"),
        ('{"document": "a", "question": 3, "answer": "c"}', "line 1: field 'question' must be text, not 3"),
    ],
)
def test_bad_questions_are_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "qa.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        load_documents(tmp_path / "qa.jsonl", TOKENIZER)
    with pytest.raises(UserError, match="cannot read"):
        load_documents(tmp_path / "none.jsonl", TOKENIZER)


def test_corpus_keeps_ids_of_large_vocabularies(tmp_path: Path) -> None:
    class Large(ByteTokenizer):
        vocab_size = 150_000

        def encode(self, text: str) -> list[int]:
            return [ord(c) * 1000 for c in text]

    (tmp_path / "a.txt").write_text("az")
    assert load_corpus(tmp_path, Large()).tolist() == [97_000, 122_000]
