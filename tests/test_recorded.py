"""Training on recordings: they are what the model reads, and what the FAM is to do with them is what is meant."""

from __future__ import annotations

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
from famcli.training.recorded.loop import RecordedTrainer, loss_of
from famcli.training.recorded.recipe import RecordedRecipe, Streams
from famcli.training.recorded.recordings import Recordings, record
from famcli.training.recorded.texts import BLOCKS, TOLD, Texts

TELLINGS = ["{name} counts {key} sheep.", "The code is {key}, again {key}."]
FAM: dict[str, Any] = {"block_size": 96, "memory_segments": 0, "fam_length": 32, "fam_before": 4, "fam_after": 2}
RECIPE: dict[str, Any] = {
    "seed": 3,
    "model": "base,attention=gated_fam," + ",".join(f"{name}={value}" for name, value in FAM.items()),
    "recordings": [{"block_size": 96, "streams": 40, "at_once": 16, "rows": 8}],
    "steps": 6,
    "learning_rate": 0.01,
    "tellings": TELLINGS,
    "passkey": 0.3,
    "key_digits": [2, 4],
    "autocast": "none",
}


def recipe_of(**changes: Any) -> RecordedRecipe:
    return read_fields(RecordedRecipe, {**RECIPE, **changes}, "test", least=0)


def corpus() -> np.ndarray:
    return np.frombuffer(("A plain text of 1872, with 40 numbers that nobody tells. " * 40).encode(), np.uint8)


def texts_of(recipe: RecordedRecipe) -> Texts:
    return Texts(recipe, ByteTokenizer(), corpus())


def untaught() -> Decoder:
    """Random weights, and a gate that keeps nothing."""
    model = small_decoder(small_config("gated_fam", vocab_size=257, **FAM))
    for name, weight in model.named_parameters():
        if "memory" in name:
            weight.data.zero_()
    return model


def test_a_text_tells_its_key_at_its_places_and_nowhere_else() -> None:
    texts, rng = texts_of(recipe_of()), np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        text = texts.draw(rng, 96)
        seen.add(text.told)
        assert len(text.ids) == BLOCKS * 96
        if text.told == "never":
            assert min(text.places) >= len(text.ids)
            continue
        said = "".join(chr(text.ids[place]) if place < len(text.ids) else "?" for place in text.places)
        mentions = 1 if " counts " in ByteTokenizer().decode(text.ids) else 2
        assert len(said) % mentions == 0 and 2 <= len(said) // mentions <= 4
        assert set(said) <= set("0123456789?")
        blocks = {place // 96 for place in text.places}
        assert blocks <= {"first": {0}, "second": {1}}.get(text.told, {0, 1, 2})
    assert seen == set(TOLD)


def test_a_number_is_found_each_time_that_a_line_has_it_whatever_stands_before() -> None:
    class Fusing(ByteTokenizer):
        """A space and a digit after it are one token."""

        def encode(self, text: str) -> list[int]:
            found: list[int] = []
            for i in super().encode(text):
                found[-1:] = [300 + i] if found[-1:] == [32] and 48 <= i < 58 else [*found[-1:], i]
            return found

        def decode(self, ids: Any) -> str:
            return "".join(f" {chr(i - 300)}" if i >= 300 else chr(i) for i in ids)

    texts = Texts(recipe_of(), Fusing(), corpus())
    line, places = texts._line("47 is it. Once more: 47.", "47")
    assert [line[i] for i in places] == [52, 55, 352, 55]


@torch.no_grad()
def test_recorded_keys_are_those_of_a_stream_with_what_is_worth_it_in_sight() -> None:
    """Layer 0 sees embeddings alone; above it, blocks after a key differ from those that a plain window reads."""
    model = untaught()
    recordings = record(model, texts_of(recipe_of()), Streams(96, 60, 20), 0)
    plain = small_decoder(small_config("bswa", vocab_size=257, block_size=96, memory_segments=0, sinks=1))
    plain.load_state_dict({name: w for name, w in model.state_dict().items() if name in plain.state_dict()})
    ids = torch.tensor([text.ids for text in recordings.texts])
    attention, norm = model.layer(0).attention, model.layer(0).attention_norm
    unturned = attention.keys_values(norm(model.embedding(ids[:, :1])), model.place(0).turn(0, 1))[0]
    assert distance(recordings.keys[0].unflatten(0, (60, BLOCKS))[:, 0, :, 0], unturned[:, :, 0]) <= 1e-10
    state = plain.prefill(ids[:, :96], plain.start(60))
    state = plain.prefill(ids[:, 144:], plain.prefill(ids[:, 96:144], state))
    expected = model.whole_block(1, 1).turned_back(state.layers[-1]["block_keys"])
    differs = (recordings.keys[-1].unflatten(0, (60, BLOCKS))[:, 1] - expected).abs().amax(dim=(1, 2, 3))
    assert differs[[text.told == "first" for text in recordings.texts]].min() > 1e-3


@torch.no_grad()
def test_what_is_worth_keeping_are_the_tokens_of_keys() -> None:
    recordings = record(untaught(), texts_of(recipe_of()), Streams(96, 60, 20), 0)
    worth = recordings.worth().unflatten(0, (60, BLOCKS)).flatten(1)
    for text, row in zip(recordings.texts, worth, strict=True):
        assert row.nonzero()[:, 0].tolist() == [place for place in text.places if place < 2 * 96]


@torch.no_grad()
def test_what_is_recorded_does_not_depend_on_how_far_the_gate_is(tmp_path: Path) -> None:
    recipe, found = recipe_of(), []
    for bias in (0.0, 5.0):
        model = untaught()
        for number in range(model.config.layers):
            model.get_parameter(f"layers.{number}.memory.bias").data.fill_(bias)
        trainer = RecordedTrainer(recipe, model, texts_of(recipe), tmp_path, "x")
        path = trainer.recordings_path(recipe.recordings[0])
        trainer._record(recipe.recordings[0], path)
        assert all(float(weight.sum()) == bias for name, weight in trainer.trained.items() if "bias" in name)
        found.append(Recordings.load(path).keys)
    assert torch.equal(*found)


def test_the_gate_alone_gets_a_gradient(tmp_path: Path) -> None:
    recipe, model = recipe_of(steps=1), untaught()
    trainer = RecordedTrainer(recipe, model, texts_of(recipe), tmp_path, "x")
    trainer.run(lambda line: None)
    assert set(trainer.trained) == {f"layers.{i}.memory.{name}" for i in range(3) for name in ("weight", "bias")}
    for name, weight in model.named_parameters():
        assert (weight.grad is not None) == (name in trainer.trained), name


@pytest.mark.parametrize("keep_from", [0.5, 0.1])
def test_the_loss_is_that_of_each_token_a_token_of_a_key(keep_from: float) -> None:
    scores, told = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[True, False, True]])
    odds = np.exp([2.0, -1.0, 0.5]) * keep_from / (1 - keep_from)
    of_a_key = odds / (1 + odds)
    logs = -np.log([of_a_key[0], 1 - of_a_key[1], of_a_key[2]])
    assert float(loss_of(scores, told, keep_from)) == pytest.approx(logs.sum() / 2, rel=1e-5)
    assert float(loss_of(scores, told & False, keep_from)) == pytest.approx(-np.log(1 - of_a_key).sum(), rel=1e-5)


def test_a_gate_learns_to_find_keys_and_keeps_them_when_it_reads(tmp_path: Path) -> None:
    classic = {"fillers": {"classic": 1, "sentences": 0, "text": 0}}
    recipe, model, lines = recipe_of(steps=400, learning_rate=0.3, **classic), untaught(), list[dict[str, Any]]()
    texts = texts_of(recipe)
    RecordedTrainer(recipe, model, texts, tmp_path, "x").run(lines.append)
    assert lines[-1]["missed"] < 0.3 and lines[-1]["false"] < 0.02
    rng = np.random.default_rng(9)
    some = [text for _ in range(60) if (text := texts.draw(rng, 96)).told in ("first", "never")]
    with torch.no_grad():
        state = model.prefill(torch.tensor([text.ids[:96] for text in some]), model.start(len(some)))
    kept = state.layers[0]["fam_filled"].any(dim=1).tolist()
    right = [found == (text.told == "first") for found, text in zip(kept, some, strict=True)]
    assert sum(right) > 0.9 * len(right)


def test_recordings_come_back_from_their_file(tmp_path: Path) -> None:
    recordings = record(untaught(), texts_of(recipe_of()), Streams(96, 40, 16), 0)
    recordings.save(tmp_path / "some")
    again = Recordings.load(tmp_path / "some")
    assert again.texts == recordings.texts and torch.equal(again.keys, recordings.keys)


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
    name = "layers.1.memory.weight"
    assert torch.equal(loaded.decoder.get_parameter(name), whole[name]) and whole[name].any()


def test_a_run_of_another_recipe_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*write_inputs(), "--output", "out"]) == 0
    assert main([*write_inputs(keep_from=0.1), "--output", "out", "--resume"]) == 2
    assert "another recipe" in capsys.readouterr().err


def test_an_adapter_with_groups_of_latents_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*write_inputs(steps=1), "--output", "out"]) == 0
    about = json.loads(Path("out/famcli.json").read_text())
    about["model"]["fam_group"] = 9
    Path("out/famcli.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="gated_fam of an earlier version"):
        load_model("out", "cpu", "float32")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "base"}, "lacks"),
        ({"tellings": ["Nothing."]}, "tells no {key}"),
        ({"tellings": []}, "at least one entry"),
        ({"recordings": []}, "at least one entry"),
        ({"key_digits": [7, 6]}, "key_digits must be two numbers"),
        ({"keep_from": 1}, "keep_from must be above 0 and below 1"),
        ({"recurring": 1.5}, "recurring must be from 0 to 1"),
        ({"tellings": ["It is {key} of {place}"]}, "cannot be filled in"),
        ({"recordings": [{"block_size": 96, "streams": 2}]}, "more streams"),
        ({"recordings": [{"block_size": 0, "streams": 40}]}, "block_size must be from 1 to"),
        ({"recordings": [{"block_size": 96, "streams": 10**9}]}, "streams must be from 1 to 16,777,216"),
        ({"recordings": [{"block_size": 1 << 20, "streams": 40, "at_once": 40}]}, "blocks of 41,943,040 tokens"),
        ({"log_every": 0}, "log_every must be from 1 to"),
        ({"steps": 10**12}, "steps must be from 1 to"),
        ({"learning_rate": 0}, "learning_rate must be above 0, not 0"),
        ({"key_digits": [1, 10**9]}, "key_digits must be two numbers from 1 to 64"),
        ({"fillers": {"classic": 0, "sentences": 0, "text": 0}}, "nothing stands around"),
        ({"tellings": ["It is {key} " + "and so on " * 12], "passkey": 0}, "more than a block"),
        ({"phases": []}, "phases"),
    ],
)
def test_what_does_not_fit_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changes: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*write_inputs(**changes), "--output", "out"]) == 2
    assert words in capsys.readouterr().err


def test_a_recipe_of_texts_refuses_a_memory_that_they_teach_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs()
    recipe = Path(__file__).parent.parent / "configs" / "recipes" / "fam-135m-passkey.yaml"
    command = ["train", "--recipe", str(recipe), "--text", "text", "--model", RECIPE["model"], "--output", "out"]
    assert main([*command, "--device", "cpu"]) == 2
    assert "a text's loss teaches it nothing" in capsys.readouterr().err


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
        drawn = [text for _ in range(60) if (text := texts.draw(rng, 96)).told in ("first", "second")]
        kinds = [len({text.ids[place] for place in text.places}) for text in drawn]
        assert all(1 <= kind <= (2 if share else 4) for kind in kinds)
        assert max(kinds) == (2 if share else 4)


def test_damaged_recordings_are_named_and_those_of_another_recipe_left_alone(tmp_path: Path) -> None:
    recipe, other = recipe_of(), recipe_of(tellings=TELLINGS[:1])
    mine, others = (RecordedTrainer(some, untaught(), texts_of(some), tmp_path, "x") for some in (recipe, other))
    path = mine.recordings_path(recipe.recordings[0])
    assert path != others.recordings_path(recipe.recordings[0])
    path.parent.mkdir()
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=f"{path.name} is damaged"):
        mine.run(lambda line: None)
