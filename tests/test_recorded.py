"""Training on recordings: they are what the model reads, and what the FAM is to do with them is what is meant."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_models import distance, small_config, small_decoder
from test_checkpoint import save_small

from famcli.checkpoints.registry import load_model
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.cli.main import main
from famcli.errors import UserError
from famcli.fields import read_fields
from famcli.models.decoder import Decoder
from famcli.models.memories import gated_fam
from famcli.models.memories.gated_fam import GatedFam
from famcli.training.recorded.course import IGNORED, REST, Course, Update, draw_course
from famcli.training.recorded.loop import RecordedTrainer
from famcli.training.recorded.recipe import RecordedRecipe, Streams
from famcli.training.recorded.recordings import Recordings, record
from famcli.training.recorded.step import RecordedStep
from famcli.training.recorded.texts import BLOCKS, TOLD, Texts

TELLINGS = [
    {"line": "{name} counts {key} sheep.", "question": "How many sheep has {name}? There are"},
    {"line": "The code is {key}, again {key}.", "question": "The code is"},
]
FAM: dict[str, Any] = {
    "block_size": 96,
    "memory_segments": 0,
    "fam_length": 18,
    "fam_group": 6,
    "fam_rank": 2,
    "fam_ffn": False,
}
RECIPE: dict[str, Any] = {
    "seed": 3,
    "model": "base," + "attention=gated_fam," + ",".join(f"{name}={value}" for name, value in FAM.items()).lower(),
    "recordings": [{"block_size": 96, "streams": 40, "at_once": 16}],
    "tellings": TELLINGS,
    "passkey": 0.3,
    "key_digits": [2, 4],
    "lead_slots": 2,
    "answer_slots": 4,
    "warmup": 1,
    "autocast": "none",
    "phases": [
        {"steps": 3, "block_sizes": [96], "rows": 4, "learning_rate": 0.01, "answers": 1},
        {"steps": 3, "block_sizes": [96], "rows": 4, "learning_rate": 0.01, "keys": 3, "others": 2, "text": 1},
    ],
}


def recipe_of(**changes: Any) -> RecordedRecipe:
    return read_fields(RecordedRecipe, {**RECIPE, **changes}, "test", least=0)


def corpus() -> np.ndarray:
    return np.frombuffer(("A plain text of 1872, with 40 numbers that nobody tells. " * 40).encode(), np.uint8)


def texts_of(recipe: RecordedRecipe) -> Texts:
    return Texts(recipe, ByteTokenizer(), corpus())


def lively() -> Decoder:
    return small_decoder(small_config("gated_fam", vocab_size=257, **FAM))


def test_a_text_tells_its_key_at_its_places_and_nowhere_else() -> None:
    texts, rng = texts_of(recipe_of()), np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        text = texts.draw(rng, 96)
        seen.add(text.told)
        assert len(text.ids) == BLOCKS * 96
        lead, key = bytes(text.held[:2]).decode(), bytes(text.held[2:]).decode()
        assert bytes(text.said).decode() == f" {key}."
        assert lead.endswith(" ")
        if text.told == "never":
            assert min(map(min, text.places)) >= len(text.ids)
            continue
        for mention in zip(*text.places, strict=True):
            said = [text.ids[place] for place in mention if place < len(text.ids)]
            assert said == text.held[: len(said)]
        blocks = {place // 96 for places in text.places for place in places}
        assert blocks == {"first": {0}, "second": {1}}.get(text.told, blocks)
    assert seen == set(TOLD)


@torch.no_grad()
def test_a_fam_that_looks_at_recordings_is_the_one_that_read_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block writes a group; tokens do not see the FAM, as they did not when these texts were recorded."""
    monkeypatch.setattr(gated_fam, "OPENS", -1.0)
    monkeypatch.setattr(gated_fam, "TAKES", -1.0)
    recipe, model = recipe_of(), lively()
    recordings = record(model, texts_of(recipe), Streams(96, 60, 20), 0)
    rows = recordings.told("never")
    visible = GatedFam.visible

    def unseen(self: GatedFam, state: dict[str, torch.Tensor], parts: Any) -> torch.Tensor:
        return visible(self, {"fam_filled": torch.zeros_like(state["fam_filled"])}, parts)

    monkeypatch.setattr(GatedFam, "visible", unseen)
    everything = torch.zeros(len(rows), 6, 2, dtype=torch.int64)
    updates = [Update(rows, later, everything, 0) for later in (False, True)]
    step = RecordedStep(model, recordings, recipe, recipe.phases[0], Course(rows[None], updates))
    state = model.prefill(torch.tensor([recordings.texts[int(i)].ids for i in rows]), model.start(len(rows)))
    for number, layer in enumerate(state.layers):
        after = step._evolve(number, model.start(1).layers[number])
        assert after["fam_filled"].sum() == 12 * len(rows)
        for name in ("fam", "fam_keys", "fam_values", "sink_keys", "sink_values"):
            assert distance(after[name], layer[name]) <= 1e-10, (number, name)


@torch.no_grad()
def test_targets_are_what_is_told_as_if_it_stood_where_the_slots_are() -> None:
    recipe, model = recipe_of(), lively()
    recordings = record(model, texts_of(recipe), Streams(96, 40, 16), 0)
    attention, norm = model.layer(0).attention, model.layer(0).attention_norm
    for text, target in zip(recordings.texts, recordings.targets[0], strict=True):
        assert not target[:, len(text.held) :].any()
        if text.told == "never":
            assert not target.any()
            continue
        count = len(text.held)
        ids = torch.tensor(text.held, dtype=torch.int64)
        turned = model.place(0).turn(-6, count)
        expected = torch.cat(attention.keys_values(norm(model.embedding(ids[None])), turned), dim=1)[0]
        assert distance(target[:, :count], expected) <= 1e-10


@torch.no_grad()
def test_blocks_after_a_key_see_it_and_others_see_nothing() -> None:
    """With a segment, so that the sink stands where it does without FAM."""
    model = small_decoder(small_config("gated_fam", vocab_size=257, **{**FAM, "memory_segments": 1}))
    recordings = record(model, texts_of(recipe_of()), Streams(96, 60, 20), 0)
    plain = small_decoder(small_config("bswa", vocab_size=257, block_size=96, memory_segments=1, sinks=1))
    plain.load_state_dict({name: w for name, w in model.state_dict().items() if name in plain.state_dict()})
    ids = torch.tensor([text.ids for text in recordings.texts])
    state = plain.prefill(ids[:, :96], plain.start(60))
    for part in ids[:, 96:].split(48, dim=1):
        state = plain.prefill(part, state)
    expected = torch.cat((state.layers[-1]["block_keys"], state.layers[-1]["block_values"]), dim=1)
    differs = (recordings.blocks[-1].unflatten(0, (60, BLOCKS))[:, 1] - expected).abs().amax(dim=(1, 2, 3))
    assert differs[torch.cat((recordings.told("second"), recordings.told("never")))].max() <= 1e-10
    assert differs[recordings.told("first")].min() > 1e-3


def test_each_slot_takes_its_token_where_it_is_told_and_none_elsewhere() -> None:
    recipe, model = recipe_of(), lively()
    recordings = record(model, texts_of(recipe), Streams(96, 60, 20), 0)
    rng, phase = np.random.default_rng(0), recipe.phases[1]
    keys = set()
    for _ in range(200):
        course = draw_course(rng, recordings, recipe, phase)
        keys.add(len(course.told))
        taken: dict[tuple[int, int], dict[int, set[int]]] = {}
        for number, update in enumerate(course.updates):
            assert update.later or not number or update.tells is not None
            for row, text_number in enumerate(update.texts.tolist()):
                text = recordings.texts[text_number]
                ids = text.ids[int(update.later) * 96 :][:96]
                told = {place // 96 for places in text.places for place in places}
                if update.tells is None:
                    assert int(update.later) not in told
                    assert (update.wanted[row] == REST).all()
                    continue
                assert course.told[update.tells, row] == text_number
                some = taken.setdefault((update.tells, row), {})
                for slot, places in enumerate(update.wanted[row].tolist()):
                    assert places[0] != IGNORED or slot in some
                    if places[0] >= 0:
                        assert slot not in some
                        some[slot] = {ids[place] for place in places}
        for (key, row), some in taken.items():
            held = recordings.texts[int(course.told[key, row])].held
            assert some == {slot: {token} for slot, token in enumerate(held)}
        for row in range(phase.rows):
            asked = [tuple(recordings.texts[int(i)].question) for i in course.told[:, row]]
            assert len(set(asked)) == len(asked)
    assert keys == {1, 2, 3}


@pytest.mark.parametrize("asks", [True, False])
def test_the_memory_alone_gets_a_gradient(tmp_path: Path, asks: bool) -> None:
    recipe, model = recipe_of(), lively()
    trainer = RecordedTrainer(recipe, model, texts_of(recipe), tmp_path, "x")
    recordings = record(model, trainer.texts, Streams(96, 40, 20), 0)
    course = draw_course(np.random.default_rng(1), recordings, recipe, recipe.phases[1])
    step = RecordedStep(model, recordings, recipe, recipe.phases[1], course, asks=asks)
    step.run(np.random.default_rng(0)).backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is not None) == (name in trainer.trained), name
    assert any(weight.grad.abs().sum() > 0 for weight in trainer.trained.values() if weight.grad is not None)


@torch.no_grad()
def test_groups_that_hold_their_targets_miss_nothing() -> None:
    """The losses of keys and values, of older groups as well, whose keys were turned further."""
    recipe, model = recipe_of(), lively()
    recordings = record(model, texts_of(recipe), Streams(96, 60, 20), 0)
    rng = np.random.default_rng(3)
    courses = (draw_course(rng, recordings, recipe, recipe.phases[1]) for _ in range(99))
    course = next(course for course in courses if len(course.told) == 3)
    step = RecordedStep(model, recordings, recipe, recipe.phases[1], course)
    state = step._evolve(1, model.start(1).layers[1])
    step.losses.sums.clear()
    state |= {name: state[name].clone() for name in ("fam_keys", "fam_values")}
    for group, targets in enumerate(recordings.targets[1][step.holds.clamp(min=0)].unbind(1)):
        some = slice(group * 6, group * 6 + 6)
        own_keys, own_values = targets.chunk(2, dim=1)
        state["fam_keys"][:, :, some] = model.place(1).moved(own_keys, group * 6 - 12)
        state["fam_values"][:, :, some] = own_values
    step._match(1, state)
    assert {name: float(sum(step.losses.sums[name])) for name in ("keys", "values")} == pytest.approx(
        {"keys": 0, "values": 0}, abs=1e-9
    )


@torch.no_grad()
def test_text_that_is_read_on_is_read_as_a_stream_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an empty FAM, which no token sees."""
    monkeypatch.setattr(gated_fam, "OPENS", 2.0)
    recipe, model = recipe_of(), lively()
    every = record(model, texts_of(recipe), Streams(96, 60, 20), 0)
    rows = every.told("never")
    blocks = torch.stack((rows * BLOCKS, rows * BLOCKS + 1), dim=1).flatten()
    some = Recordings(
        96, [every.texts[int(i)] for i in rows], every.blocks[:, blocks], every.sinks[:, rows], every.targets[:, rows]
    )
    numbers = torch.arange(len(rows))
    step = RecordedStep(model, some, recipe, recipe.phases[1], Course(numbers[None], []))
    step._read_on([step._evolve(i, begun) for i, begun in enumerate(model.start(1).layers)], np.random.default_rng(5))
    rng = np.random.default_rng(5)
    read = 96 + int(rng.integers(0, 96 - 48))
    ids = torch.tensor([some.texts[i].ids for i in rng.integers(0, len(rows), len(rows)).tolist()])
    latents, _ = model.read(ids[:, : read + 48], model.start(len(rows)))
    predicted = model.logits(latents[:, read:]).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(predicted, ids[:, read + 1 : read + 49].flatten())
    found = step.losses.mean("text")
    assert found is not None and abs(found - expected) <= 1e-9


def test_before_text_is_read_on_every_block_writes_and_before_a_question_those_that_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, model = recipe_of(), lively()
    recordings = record(model, texts_of(recipe), Streams(96, 60, 20), 0)
    seen: list[torch.Tensor] = []
    for name in ("_read_on", "_ask"):
        monkeypatch.setattr(RecordedStep, name, lambda self, layers, rng: seen.append(layers[0]["fam_filled"]))
    rng, phase = np.random.default_rng(2), dataclasses.replace(recipe.phases[1], keys=1, others=2)
    for asks in (False, True):
        courses = (draw_course(rng, recordings, recipe, phase) for _ in range(99))
        course = next(course for course in courses if len(course.updates) == 3)  # as many as there are groups
        told = [update.takes for update in course.updates if update.tells is not None]
        RecordedStep(model, recordings, recipe, phase, course, asks=asks).run(rng)
        expected = sum(takes.sum(1) for takes in told) + (0 if asks else 6 * 2)
        assert torch.equal(seen[-1].sum(1), expected)


def test_slots_learn_to_look_at_what_is_told(tmp_path: Path) -> None:
    phase = {"steps": 150, "block_sizes": [96], "rows": 16, "learning_rate": 0.05, "answers": 0, "rest": 0.1}
    recipe, model = recipe_of(phases=[phase], passkey=0, tellings=TELLINGS[1:], key_digits=[3, 3]), lively()
    lines: list[dict[str, Any]] = []
    RecordedTrainer(recipe, model, texts_of(recipe), tmp_path, "x").run(lines.append)
    assert lines[-1]["attention"] < 0.95 * lines[0]["attention"]


def test_recordings_come_back_from_their_file(tmp_path: Path) -> None:
    recordings = record(lively(), texts_of(recipe_of()), Streams(96, 40, 16), 0)
    recordings.save(tmp_path / "some")
    again = Recordings.load(tmp_path / "some")
    assert again.texts == recordings.texts
    assert all(torch.equal(getattr(again, name), getattr(recordings, name)) for name in ("blocks", "sinks", "targets"))


def write_inputs(**changes: Any) -> list[str]:
    save_small(Path("base"), "full", block_size=96)
    Path("text").mkdir(exist_ok=True)
    Path("text/a.txt").write_bytes(corpus().tobytes())
    Path("how.yaml").write_text(yaml.safe_dump({**RECIPE, **changes}))
    return ["train", "--recipe", "how.yaml", "--text", "text", "--device", "cpu"]


def test_a_run_that_stops_goes_on_to_the_same_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = write_inputs(checkpoint_every=2, model=RECIPE["model"].replace("segments=0", "segments=2"))
    assert main([*command, "--output", "whole"]) == 0
    save = RecordedTrainer.save

    def stop(self: RecordedTrainer) -> None:
        save(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RecordedTrainer, "save", stop)
        assert main([*command, "--output", "parts"]) != 0
    assert main([*command, "--output", "parts", "--resume"]) == 0
    whole, parts = (load_file(f"{name}/fam.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    about = json.loads(Path("whole/famcli.json").read_text())
    assert about["trained"]["steps"] == 6
    assert about["model"]["memory_segments"] == 2
    loaded = load_model("whole", "cpu", "float32")
    assert loaded.untrained_memory is None
    assert torch.equal(loaded.decoder.get_parameter("fam_embedding"), whole["fam_embedding"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "base"}, "lacks"),
        ({"model": RECIPE["model"] + ",sinks=2"}, "a sink"),
        ({"answer_slots": 9}, "fam_group"),
        ({"phases": [{"steps": 1, "block_sizes": [96], "learning_rate": 0.1, "keys": 4}]}, "3 groups"),
        ({"tellings": [{"line": "{key} it is.", "question": "What?"}], "passkey": 0}, "fewer than lead_slots"),
        ({"tellings": [{"line": "Nothing.", "question": "What?"}]}, "tells no {key}"),
        ({"phases": [{"steps": 1, "block_sizes": [32], "learning_rate": 0.1}]}, "32"),
        ({"key_digits": [6, 7]}, "answer_slots"),
        ({"recurring": 1.5}, "recurring must be from 0 to 1"),
        ({"tellings": [{"line": "It is {key} of {place}", "question": "What?"}]}, "cannot be filled in"),
        ({"recordings": [{"block_size": 96, "streams": 2}]}, "more streams"),
        ({"recordings": [{"block_size": 0, "streams": 40}]}, "block_size must be at least 1"),
        ({"log_every": 0}, "log_every must be at least 1"),
        ({"fillers": {"classic": 0, "sentences": 0, "text": 0}}, "nothing stands around"),
        (
            {"tellings": [{"line": "It is {key} " + "and so on " * 12, "question": "What?"}], "passkey": 0},
            "more than a block",
        ),
    ],
)
def test_what_does_not_fit_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changes: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*write_inputs(**changes), "--output", "out"]) == 2
    assert words in capsys.readouterr().err


def test_questions_about_documents_have_no_place_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("qa.jsonl").write_text("{}")
    assert main([*write_inputs(), "--qa", "qa.jsonl", "--output", "out"]) == 2
    assert "leave out --qa" in capsys.readouterr().err


def test_a_corpus_shorter_than_a_text_begins_again() -> None:
    recipe = recipe_of(fillers={"classic": 0, "sentences": 0, "text": 1})
    texts = Texts(recipe, ByteTokenizer(), np.frombuffer(b"Short.", np.uint8))
    assert b"Short.Short." in bytes(i for i in texts.draw(np.random.default_rng(0), 96).ids if i < 256)


def test_recurring_keys_are_made_of_two_digits() -> None:
    rng = np.random.default_rng(4)
    for share in (0.0, 1.0):
        texts = texts_of(recipe_of(recurring=share, key_digits=[4, 4]))
        kinds = [len(set(bytes(texts.draw(rng, 96).said).decode()[1:-1])) for _ in range(60)]
        assert all(1 <= kind <= (2 if share else 4) for kind in kinds)
        assert max(kinds) == (2 if share else 4)


def test_damaged_recordings_are_named_and_those_of_another_recipe_left_alone(tmp_path: Path) -> None:
    recipe, other = recipe_of(), recipe_of(tellings=TELLINGS[:1])
    mine, others = (RecordedTrainer(some, lively(), texts_of(some), tmp_path, "x") for some in (recipe, other))
    path = mine.recordings_path(recipe.recordings[0])
    assert path != others.recordings_path(recipe.recordings[0])
    path.parent.mkdir()
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=f"{path.name} is damaged"):
        mine.run(lambda line: None)


def test_a_step_with_a_large_gradient_changes_nothing_and_is_told(tmp_path: Path) -> None:
    recipe, told = recipe_of(skip_above=1e-9), list[str]()
    trainer = RecordedTrainer(recipe, lively(), texts_of(recipe), tmp_path, "x")
    trainer.run(lambda line: None, told.append)
    assert sum("changes nothing" in line for line in told) == recipe.steps
    assert not trainer.optimizer.state_dict()["state"]


def test_keys_that_would_be_asked_for_alike_are_refused() -> None:
    recipe, model = recipe_of(tellings=TELLINGS[1:], passkey=0), lively()
    recordings = record(model, texts_of(recipe), Streams(96, 40, 20), 0)
    with pytest.raises(UserError, match="asked for in the same words"):
        for seed in range(20):
            draw_course(np.random.default_rng(seed), recordings, recipe, recipe.phases[1])
