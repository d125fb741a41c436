"""What the bundled weights are shipped for: FAM recalls what lies far behind its block, BSWA only what it sees."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from famcli.tasks.passkey import Draw, PassKeyText, Told
from famcli.tasks.wordings import DESCRIPTION, KEY_LINE

from famcli.checkpoints.registry import load_model
from famcli.evaluation.generation import answer_batch
from famcli.evaluation.prompts import prompt_tokens
from famcli.evaluation.runner import evaluate
from famcli.metrics.recall import first_digit_run
from famcli.task import load_task


def accuracy(name: str, results: Path, length: int, trials: int, position: str = "start") -> float:
    model = load_model(name, device="cpu")
    options = {"lengths": str(length), "trials": str(trials), "position": position}
    return evaluate(model, load_task("passkey", options), results=results, seed=1).metrics["accuracy"].value


def test_both_recall_within_a_block(tmp_path: Path) -> None:
    """Over lengths: a single key of sixteen weighs too much."""
    for name in ("fam-tiny", "bswa-tiny"):
        assert sum(accuracy(name, tmp_path, length, 16) for length in (512, 1024, 2048)) / 3 >= 0.93


def test_fam_alone_recalls_beyond_the_receptive_field(tmp_path: Path) -> None:
    field = load_model("bswa-tiny").decoder.config.receptive_field
    assert field is not None and field < 5000
    assert accuracy("fam-tiny", tmp_path, 5000, 16) >= 0.9
    assert accuracy("fam-tiny", tmp_path, 16384, 8) >= 0.85
    assert accuracy("fam-tiny", tmp_path, 8192, 8, "random") >= 0.85
    assert accuracy("bswa-tiny", tmp_path, 5000, 16) <= 0.1
    assert accuracy("bswa-tiny", tmp_path, 16384, 8) <= 0.1


def test_fam_zeroed_forgets(tmp_path: Path) -> None:
    """The recall comes from the FAM: with its output projections' reading of it removed, nothing is left."""
    model = load_model("fam-tiny", device="cpu")
    task = load_task("passkey", {"lengths": "8192", "trials": "8"})
    requests = [sample.request() for sample in task.samples(model.tokenizer, 1, None)]
    tokens = torch.tensor([[i for part in r.prompt.segments for i in encoded(part, model.tokenizer)] for r in requests])
    with torch.no_grad():
        state = model.decoder.prefill(tokens[:, :6144], model.decoder.start(len(requests)))
        model.decoder.carry(state, [torch.zeros_like(fam) for fam in model.decoder.carried(state)])
        latents, state = model.decoder.read(tokens[:, 6144:], state)
        first = model.decoder.logits(latents[:, -1]).argmax(-1)
        latents, state = model.decoder.read(first[:, None], state)
        digits = model.tokenizer.decode(model.decoder.logits(latents[:, -1]).argmax(-1).tolist())
    keys = [sample.reference for sample in task.samples(model.tokenizer, 1, None)]
    assert sum(digit == key[0] for digit, key in zip(digits, keys, strict=True)) <= 4


def test_fam_takes_in_a_key_told_across_the_end_of_a_block() -> None:
    """Each of two blocks has one of the two mentions, so that none of them tells the key twice."""
    model = load_model("fam-tiny", device="cpu")
    text, size = PassKeyText(model.tokenizer), model.decoder.config.block_size
    keys = ["31415", "92653", "58979", "32384", "62643", "38327", "95028", "84197"]
    first_told, both_told = KEY_LINE.index("."), KEY_LINE.rindex("{key}") + len("{key}")
    cuts = [first_told + (both_told - first_told) * i // len(keys) for i in range(len(keys))]
    requests = []
    for key, cut in zip(keys, cuts, strict=True):
        before = size - cut - len(model.tokenizer.encode(DESCRIPTION + "\n" + "\n"))
        draw = Draw(3 * size, "random", 0, Told(key, "", 0.0))
        requests.append(text.request(draw, [before, 2 * size - before]))
    prompts = [prompt_tokens(request, model.tokenizer) for request in requests]
    replies = answer_batch(model.decoder, model.tokenizer, requests, prompts, None, lambda tokens: None)
    assert sum(first_digit_run(r.answer.text) == key for r, key in zip(replies, keys, strict=True)) >= 6


def encoded(part: object, tokenizer: object) -> list[int]:
    return tokenizer.encode(part) if isinstance(part, str) else part.tolist()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_fam_recalls_a_key_at_a_random_place(tmp_path: Path) -> None:
    assert accuracy("fam-tiny", tmp_path, 65536, 20, "random") >= 0.9
    assert accuracy("fam-tiny", tmp_path, 262144, 5) >= 0.8
