"""``hf:``: any model of transformers is read as transformers reads it in one pass, in whatever pieces."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from any_models import save_any_model, save_byte_tokenizer
from torch import Tensor

from famcli.checkpoints.registry import find_checkpoint, find_model, load_model
from famcli.errors import UserError
from famcli.evaluation.record import RunRecord
from famcli.evaluation.recorded_model import context_of
from famcli.evaluation.runner import evaluate
from famcli.models.transformers_stream import COPIED, NONE, SINGLE, Facts, TransformersStream
from famcli.task import Task, load_task

KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("llama", {}, COPIED),
    "windows": ("mistral", {"sliding_window": 5}, COPIED),
    "windows and all": ("gemma2", {}, COPIED),
    "state space": ("mamba2", {}, COPIED),
    "hybrid": ("jamba", {}, SINGLE),
    "no base": ("opt", {}, COPIED),
    "no cache": ("openai-gpt", {}, NONE),
}
LENGTH = 45
CHUNKINGS = ([LENGTH], [1] * LENGTH, [1, 7, 20, 1, 16], [2, 40, 3])


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, TransformersStream]:
    """A model of transformers, and the stream of the same files."""
    kind, fields, cache = KINDS[request.param]
    directory = tmp_path_factory.mktemp("models") / kind
    model = save_any_model(directory, kind, **fields)
    stream = load_model(f"hf:{directory}", "cpu", "float32").stream
    assert isinstance(stream, TransformersStream)
    assert (stream.cache, stream.description["cache"]) == (cache, cache)
    return model, stream


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


def text(rows: int = 2, length: int = LENGTH, seed: int = 1) -> Tensor:
    return torch.randint(50, (rows, length), generator=torch.Generator().manual_seed(seed))


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sizes", CHUNKINGS)
def test_any_pieces_give_the_logits_of_one_pass(pair: tuple[Any, TransformersStream], sizes: list[int]) -> None:
    model, stream = pair
    state, found = stream.start(2), []
    for tokens in text().split(sizes, dim=1):
        latents, state = stream.read(tokens, state)
        found.append(stream.logits(latents))
    close(torch.cat(found, dim=1), model(text()).logits)
    assert (state.tokens_read, state.batch) == (LENGTH, 2)


def test_copies_and_rows_go_their_own_ways(pair: tuple[Any, TransformersStream], tmp_path: Path) -> None:
    model, stream = pair
    head, tails = text(1, 20), text(3, 9, seed=2)
    state = stream.prefill(head, stream.start(1))
    copy, rows = state.fork(), state.index([0, 0, 0])
    stream.read(text(1, 5, seed=3), state)  # whatever becomes of it, the others stay
    state = stream.prefill(tails[:, :4], rows).index([2, 0])
    state.save(tmp_path / "state", {"of": "two"}, {"extra": torch.arange(3)})
    loaded, texts, extra = stream.load_state(tmp_path / "state")
    assert (texts["of"], extra["extra"].tolist(), loaded.tokens_read) == ("two", [0, 1, 2], 24)
    whole = model(torch.cat((head.expand(3, -1), tails), dim=1)).logits
    for begun, picked in ((state, [2, 0]), (loaded, [2, 0])):
        latents, _ = stream.read(tails[picked][:, 4:], begun)
        close(stream.logits(latents), whole[picked, 24:])
    latents, _ = stream.read(tails[:1], copy)
    close(stream.logits(latents), whole[:1, 20:])


def test_a_state_has_the_size_that_is_announced(pair: tuple[Any, TransformersStream]) -> None:
    _, stream = pair
    state = stream.start(1)
    for tokens in text(1, 60).split(12, dim=1):
        state = stream.prefill(tokens, state)
        assert state.fork().nbytes == stream.state_bytes(state.tokens_read)


def test_a_state_of_another_model_is_refused(tmp_path: Path, pair: tuple[Any, TransformersStream]) -> None:
    _, stream = pair
    save_any_model(tmp_path / "other", "llama", num_key_value_heads=1)
    other = load_model(f"hf:{tmp_path / 'other'}", "cpu", "float32").stream
    other.prefill(text(), other.start(2)).save(tmp_path / "state", {}, {})
    with pytest.raises(UserError, match="another model"):
        stream.load_state(tmp_path / "state")


def test_what_cannot_reach_an_answer_changes_none(tmp_path: Path) -> None:
    save_any_model(tmp_path, "mistral", sliding_window=5)
    stream = load_model(f"hf:{tmp_path}", "cpu", "float32").stream
    assert (
        stream.receptive_field
        == find_model(str(tmp_path)).load(torch.device("cpu"), torch.float32).stream.receptive_field
    )

    def last(tokens: Tensor) -> Tensor:
        return stream.logits(stream.read(tokens, stream.start(1))[0][:, -1])

    for distance, same in ((stream.receptive_field, True), (stream.receptive_field - 1, False)):
        changed = text(1)
        changed[0, LENGTH - 1 - distance] = (changed[0, LENGTH - 1 - distance] + 1) % 50
        assert torch.equal(last(changed), last(text(1))) is same


def test_a_cache_that_loses_the_text_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = save_any_model(tmp_path, "llama")
    forward = model.model.forward

    @functools.wraps(forward)
    def forgets(*args: Any, past_key_values: Any = None, **rest: Any) -> Any:
        return forward(*args, **rest)

    model.model.forward = forgets
    stream = TransformersStream(model, Facts(50, None, {}, {}))
    assert stream.cache == NONE and "its cache does not give what one pass gives" in caplog.text
    assert (stream.computes(30, 5), stream.receptive_field) == (35, None)
    state = stream.prefill(text()[:, :30], stream.start(2))
    close(stream.logits(stream.read(text()[:, 30:], state)[0]), model(text()).logits[:, 30:])


def answers(record: RunRecord) -> list[Any]:
    lines = (record.path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted((entry["id"], entry["answer"], entry["scores"]) for entry in map(json.loads, lines))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama over bytes, which famcli's own decoder reads as well."""
    directory = tmp_path_factory.mktemp("llama")
    save_any_model(directory, "llama", vocab_size=258, max_position_embeddings=4096)
    save_byte_tokenizer(directory / "tokenizer.json")
    return directory


@pytest.mark.parametrize(
    "task",
    [load_task("passkey", {"lengths": "600", "trials": "2"}), load_task("quality", {"data": "sample"})],
    ids=lambda task: task.name,
)
def test_answers_are_those_of_our_own_decoder(checkpoint: Path, task: Task, tmp_path: Path) -> None:
    theirs, ours = (
        evaluate(load_model(spec, "cpu", "float32"), task, results=tmp_path)
        for spec in (f"hf:{checkpoint}", str(checkpoint))
    )
    assert theirs.run_id != ours.run_id and theirs.model["weights_sha256"] == ours.model["weights_sha256"]
    for (name, answer, scores), (other, expected, expected_scores) in zip(answers(theirs), answers(ours), strict=True):
        assert (name, scores) == (other, expected_scores)
        if "log_likelihoods" in answer:
            assert answer["log_likelihoods"] == pytest.approx(expected["log_likelihoods"], abs=1e-3)
        else:
            assert answer == expected
    assert theirs.cost["tokens_read"] == ours.cost["tokens_read"]


def test_the_run_id_goes_by_the_config_and_not_by_the_place(checkpoint: Path, tmp_path: Path) -> None:
    task = load_task("passkey", {"lengths": "300", "trials": "1"})

    def run(spec: str) -> str:
        return evaluate(load_model(spec, "cpu", "float32"), task, results=tmp_path / "runs").run_id[-12:]

    moved = tmp_path / "moved"
    moved.mkdir()
    for file in checkpoint.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    first = run(f"hf:{checkpoint}")
    assert run(f"hf:{moved}") == first
    assert run(f"hf:{moved},rms_norm_eps=0.5") != first


def test_texts_beyond_the_context_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    model = load_model(f"hf:{checkpoint},max_position_embeddings=512", "cpu", "float32")
    with pytest.raises(UserError, match="more than the context of 512"):
        evaluate(model, load_task("passkey", {"lengths": "600", "trials": "1"}), results=tmp_path)


def test_the_context_is_that_of_our_own_decoder_and_a_run_beyond_it_is_warned_of(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = load_task("passkey", {"lengths": "600", "trials": "1"})
    found = []
    for spec in (f"hf:{checkpoint},max_position_embeddings=512", f"{checkpoint},trained_context=512"):
        model = load_model(spec, "cpu", "float32")
        found.append(evaluate(model, task, results=tmp_path, max_context=1000))
        assert "1 of 1 prompts are longer than the 512 tokens" in caplog.text
        caplog.clear()
    assert [context_of(record) for record in found] == [512, 512]
    evaluate(model, load_task("passkey", {"lengths": "400", "trials": "1"}), results=tmp_path, max_context=1000)
    assert caplog.text == ""


def test_in_16_bits_rounding_is_told_from_a_state_that_is_lost(checkpoint: Path, tmp_path: Path) -> None:
    save_any_model(tmp_path, "mamba")
    for directory, cache in ((checkpoint, COPIED), (tmp_path, SINGLE)):
        stream = load_model(f"hf:{directory}", "cpu", "bfloat16").stream
        assert stream.cache == cache  # type: ignore[attr-defined]
        assert next(stream.model.parameters()).dtype == torch.bfloat16  # type: ignore[attr-defined]


def change(directory: Path, **fields: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


WRONG = [
    ("attention=fam", "has no field 'attention'.*own attention"),
    ("adapter=x", "takes no adapter"),
    ("rms_norm_epsilon=1", "unknown field of hf: 'rms_norm_epsilon'"),
    ("eos_token_id=3", "unknown field of hf: 'eos_token_id'"),
    ("rms_norm_eps=much", "'rms_norm_eps' must be a number"),
    ("attn_implementation=fast", "must be one of eager, sdpa"),
]


@pytest.mark.parametrize(("field", "words"), WRONG)
def test_fields_that_do_not_fit_are_named(checkpoint: Path, field: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        find_model(f"hf:{checkpoint},{field}")


def test_what_is_no_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, words in (("", "names no model"), ("./none", "no directory"), ("a/b", "local hub cache")):
        with pytest.raises(UserError, match=words):
            find_model(f"hf:{name}")
    save_any_model(tmp_path, "llama")
    with pytest.raises(UserError, match="no decoder of famcli"):
        find_checkpoint(f"hf:{tmp_path}")
    change(tmp_path, model_type="mine", auto_map={"AutoModelForCausalLM": "mine.Mine"})
    (tmp_path / "mine.py").write_text("raise SystemExit('code of a checkpoint was run')\n")
    with pytest.raises(UserError, match="'mine' and names code of its own, which famcli never runs"):
        find_model(f"hf:{tmp_path}")
    change(tmp_path, format="famcli")
    with pytest.raises(UserError, match="own format"):
        find_model(f"hf:{tmp_path}")


def test_without_transformers_the_message_says_how_to_get_it(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="needs transformers") as caught:
        find_model(f"hf:{checkpoint}")
    assert caught.value.hint == "pip install 'famcli[hf]'"


def test_weights_that_are_not_there_are_not_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_any_model(tmp_path, "llama")
    with pytest.raises(UserError, match=r"lacks the tensor 'model.layers.3.*and \d+ more"):
        load_model(f"hf:{tmp_path},num_hidden_layers=4", "cpu", "float32")
    with pytest.raises(UserError, match="by its config, another shape of the tensor"):
        load_model(f"hf:{tmp_path},intermediate_size=47", "cpu", "float32")
    load_model(f"hf:{tmp_path},num_hidden_layers=2", "cpu", "float32")
    assert "9 tensors are no part of the model" in caplog.text


def test_pickles_and_adapters_are_refused(tmp_path: Path) -> None:
    save_any_model(tmp_path, "llama")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds an adapter"):
        find_model(f"hf:{tmp_path}")
    (tmp_path / "adapter_config.json").unlink()
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="can run code"):
        find_model(f"hf:{tmp_path}")


def test_a_model_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    save_any_model(tmp_path, "bert", is_decoder=False)
    with pytest.raises(UserError, match="no causal language model"):
        load_model(f"hf:{tmp_path}", "cpu", "float32")
    stream = load_model(f"hf:{tmp_path},is_decoder=true", "cpu", "float32").stream
    assert stream.parameters_count > 0
