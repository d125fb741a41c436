"""Fine-tuning: memory that blocks do not fill, and weights that a kill does not change."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import distance, random_tokens, segments_of, small_config, small_decoder
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.models.decoder import Decoder
from famcli.training import reading
from famcli.training.batch import Batch
from famcli.training.log import Log
from famcli.training.loop import Trainer, draw_skipped
from famcli.training.lora import add_lora
from famcli.training.losses import Losses, Tally
from famcli.training.material import Material
from famcli.training.recipe import KeyPlaces, Lora, Mixture, Optimizer, Phase, Recipe
from famcli.training.step import read_and_ask

CORPUS = np.frombuffer(b"It is a truth universally acknowledged. " * 40, np.uint8).astype(np.uint16)
MATERIAL = Material(ByteTokenizer(), CORPUS)
LORA = Lora(rank=2, alpha=4, dropout=0.2)
REHEARSED = {
    "mixture": Mixture(passkey=2, fact=2, text=1),
    "block_size": 96,
    "blocks": 3,
    "questions": 2,
    "state_passing": 0.0,
    "key_places": KeyPlaces(at_once=1.0, soon=0.0, later=0.0),
    "retention": 0.1,
    "rehearsal": 3,
    "drift": 0.1,
    "drift_updates": 2,
}


def base(**fields: Any) -> Decoder:
    """A model to fine-tune, in float64."""
    return small_decoder(small_config(**{"vocab_size": 257, "attention": "fam", "layers": 2, **fields}))


def recipe(
    lora: Lora | None = LORA, optimizer: str = "adamw", phase: dict[str, Any] | None = None, **rest: Any
) -> Recipe:
    fields: dict[str, Any] = {
        "steps": 3,
        "mixture": Mixture(passkey=1, text=1, repeat_segment=1),
        "block_size": 24,
        "blocks": 2,
        "learning_rate": 0.01,
        **(phase or {}),
    }
    how = Optimizer(name=optimizer, warmup=2)  # type: ignore[arg-type]
    settings: dict[str, Any] = {"checkpoint_every": 4, "forget_above": 99.0, "segment_length": 9, **rest}
    return Recipe(seed=3, phases=(Phase(**fields),), lora=lora, optimizer=how, **settings)


def trainer(directory: Path, how: Recipe, model: Decoder | None = None) -> Trainer:
    model = model or base().float()
    return Trainer(how.with_model(model.config), model, MATERIAL, directory)


def one_loss(how: Recipe, model: Decoder) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """The mean losses of the first step, and the gradients of what is trained."""
    how = how.with_model(model.config)
    model.reconfigure(how.model_at(0))
    batch = Batch(how, MATERIAL)
    batch.begin(0, how.phases[0], first=True)
    losses = read_and_ask(model, batch, how, how.phases[0], 0, Tally()).losses
    total = losses.total()
    assert total is not None
    total.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {kind: mean for kind, mean in losses.means().items() if mean is not None}, gradients


@pytest.mark.parametrize(
    ("attention", "segments", "lora", "phase"),
    [
        ("fam", 0, True, {}),
        ("fam", 1, False, {}),
        ("fam", 0, True, REHEARSED),
        ("bswa", 1, True, {}),
        ("rmt", 0, True, {}),
        ("full", 0, False, {}),
    ],
)
def test_reading_blocks_again_gives_the_same_gradients(
    attention: str, segments: int, lora: bool, phase: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for again in (False, True):
        model = base(attention=attention, **segments_of(attention, segments))
        if lora:
            add_lora(model, dataclasses.replace(LORA, dropout=0.0), seed=1)
            with torch.no_grad():  # at first nothing reaches the A matrices
                for name, p in model.named_parameters():
                    if "lora_B" in name:
                        p.normal_(generator=torch.Generator().manual_seed(0))
        monkeypatch.setattr(reading, "LOGITS_AT_ONCE", 257 * 20 if again else 1 << 24)
        found.append(one_loss(recipe(None, gradient_checkpointing=again, phase=phase), model))
    (kept, expected), (again_read, gradients) = found
    assert again_read == pytest.approx(kept, rel=1e-12) and ("drift" in kept) == (phase is REHEARSED)
    assert gradients.keys() == expected.keys() and any("fam_embedding" in n for n in gradients) == (attention == "fam")
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-9, atol=1e-12)


class Peak(TorchDispatchMode):
    """Bytes of all tensors alive that were made within, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._seen:
                    self._seen.add(storage._cdata)
                    self.alive += storage.nbytes()
                    weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.alive)
        return out

    def _freed(self, place: int, size: int) -> None:
        self._seen.discard(place)
        self.alive -= size


def test_memory_does_not_grow_with_blocks_that_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LOGITS_AT_ONCE", 257 * 8)

    def peak(blocks: int, again: bool) -> int:
        how = recipe(None, gradient_checkpointing=again, phase={"blocks": blocks, "mixture": Mixture(text=2)})
        model = base(memory_segments=0, width=24, ffn_width=64)
        with Peak() as memory:
            one_loss(how, model)
        return memory.most

    grown, kept = peak(8, True) - peak(2, True), peak(8, False) - peak(2, False)
    assert kept > 2 * peak(2, True), "without, it does"
    assert grown < 0.1 * kept


def test_positions_may_begin_anywhere() -> None:
    """Random position offset (appendix B.2.2) changes nothing where attention sees differences of positions alone."""
    found = []
    for offset in (0, 4321):
        model = base(memory_segments=1)
        model.position_offset = offset
        found.append(one_loss(recipe(None), model))
    (expected, wanted), (shifted, gradients) = found
    assert shifted == pytest.approx(expected, abs=1e-9)
    for name, gradient in wanted.items():
        assert distance(gradients[name], gradient) < 1e-9


def test_offset_is_drawn_for_each_step_and_gone_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen = trainer(tmp_path, recipe(position_offset=1000)), []
    start = run.model.start
    monkeypatch.setattr(run.model, "start", lambda rows: seen.append(run.model.position_offset) or start(rows))
    for _ in range(3):
        run._one_step(Tally())
        assert run.model.position_offset == 0
    assert len(set(seen)) == 3 and all(0 <= offset < 1000 for offset in seen)


def test_skipped_positions_are_drawn_for_each_step_and_gone_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = trainer(tmp_path, recipe(phase={"block_positions": 200})), []
    start = run.model.start
    monkeypatch.setattr(run.model, "start", lambda rows: seen.append(run.model.skipped) or start(rows))
    for _ in range(3):
        run._one_step(Tally())
        assert run.model.skipped is None
    assert all(skipped is not None and skipped.span == 200 for skipped in seen)
    assert len({tuple(skipped.tokens.tolist()) for skipped in seen if skipped}) == 3


@pytest.mark.parametrize("span", [24, 25, 4096])
def test_skipped_positions_fill_the_span(span: int) -> None:
    lasts, jumps = [], set()
    for seed in range(200):
        skipped = draw_skipped(np.random.default_rng(seed), 24, span)
        steps = skipped.tokens.diff()
        assert skipped.tokens.shape == (24,) and skipped.tokens[0] >= 0 and skipped.tokens[-1] < skipped.span == span
        assert (steps >= 1).all() and (steps > 1).sum() <= 3
        lasts.append(skipped.tokens[-1].item())
        jumps.add((steps > 1).sum().item())
    assert max(lasts) > 0.97 * (span - 1) and (span < 100 or min(lasts) < 0.3 * span)
    assert jumps == ({0} if span == 24 else {0, 1} if span == 25 else {0, 1, 2, 3})


def test_lora_begins_as_the_base_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    model = base().float()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    tokens = random_tokens(model.config, 2, 9)
    expected = model.read(tokens, model.start(2))[0]
    run = trainer(tmp_path, recipe(), model)
    assert distance(model.eval().read(tokens, model.start(2))[0], expected) == 0
    run._one_step(Tally())
    run._one_step(Tally())
    after = {
        name.replace(".base_layer", ""): weight for name, weight in model.state_dict().items() if "lora" not in name
    }
    assert after.keys() == before.keys()
    assert {name for name in before if not torch.equal(after[name], before[name])} == {"fam_embedding"}
    assert distance(model.eval().read(tokens, model.start(2))[0], expected) > 0


@pytest.mark.parametrize(
    "how",
    [
        recipe(gradient_checkpointing=True, phase={"mixture": Mixture(passkey=2, text=1, repeat_segment=0.5, rows=3)}),
        recipe(optimizer="adafactor", phase={"state_passing_from": "first"}, position_offset=99),
        recipe(lora=None, optimizer="adafactor", evaluate_every=2, evaluate_blocks=(0, 2)),
    ],
    ids=["checkpointing", "first", "full"],
)
def test_killed_run_ends_at_the_same_weights(tmp_path: Path, how: Recipe) -> None:
    unbroken = trainer(tmp_path / "unbroken", how).run(lambda line: None).state_dict()
    broken = trainer(tmp_path / "broken", how)
    for _ in range(2):  # the checkpoint is taken at 1: a step is lost and taken again
        broken._one_step(Tally())
        if broken.step == 1:
            broken.save()
    torch.manual_seed(99)
    resumed = trainer(tmp_path / "broken", how)
    resumed.resume()
    assert resumed.step == 1
    finished = resumed.run(lambda line: None).state_dict()
    assert all(torch.equal(weight, finished[name]) for name, weight in unbroken.items())


def test_evaluation_leaves_training_as_it_was(tmp_path: Path) -> None:
    how = recipe()
    plain = trainer(tmp_path / "plain", how).run(lambda line: None).state_dict()
    seen: list[int] = []
    often = dataclasses.replace(how, evaluate_every=1, evaluate_blocks=(3, 0))
    run = trainer(tmp_path / "often", often)
    evaluated = run.run(lambda line: None, lambda step, found: seen.append(step)).state_dict()
    assert seen == [1, 2, 3]
    assert all(torch.equal(weight, evaluated[name]) for name, weight in plain.items())
    lines = (tmp_path / "often" / "evaluation.csv").read_text().splitlines()
    assert [line.rsplit(",", 2)[0] for line in lines[:3]] == ["step,updates", "1,0", "1,3"] and len(lines) == 7


def test_first_row_hands_its_memory_to_all() -> None:
    """Random state passing as the paper has it (appendix B.2.3)."""
    model, passed = base(), 0
    how = recipe(phase={"state_passing": 0.8, "state_passing_from": "first", "steps": 99}).with_model(model.config)
    batch = Batch(how, MATERIAL)
    batch.begin(0, how.phases[0], first=True)
    for step in range(99):
        like = model.carried(model.start(3))
        ended = [torch.randn(f.shape, generator=torch.Generator().manual_seed(step)).double() for f in like]
        sources = list(batch.sources)
        batch.end(step, how.phases[0], 48, ended, lost={1})
        batch.begin(step + 1, how.phases[0], first=False)
        assert not any(new is old for new, old in zip(batch.sources, sources, strict=True))
        assert [row.offset for row in batch.rows] == [0, 0, 0]
        begun = batch.start(model)
        (fresh,) = {flag for layer in begun.layers for flag in layer["fam_initial"].tolist()}
        expected = model.carried(model.start(1)) if fresh else ended
        for fam, of_one in zip(model.carried(begun), expected, strict=True):
            assert torch.equal(fam, of_one[:1].expand(3, -1, -1))
        passed += not fresh
    assert 0.65 < passed / 99 < 0.95


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_what_is_not_finite_does_not_reach_the_weights(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tmp_path, recipe())
    spoil: Callable[[torch.Tensor], torch.Tensor] = torch.sqrt if broken == "gradient" else torch.log
    total = Losses.total
    monkeypatch.setattr(Losses, "total", lambda losses: spoil(0 * total(losses)))
    before = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    with pytest.raises(UserError, match=f"the {broken} is .* at step 0; no checkpoint is there yet"):
        run.run(lambda line: None)
    assert all(torch.equal(weight, before[name]) for name, weight in run.model.state_dict().items())


def test_autocast_computes_in_bfloat16_and_keeps_the_weights(tmp_path: Path) -> None:
    losses = []
    for kind in ("none", "bfloat16"):
        run = trainer(
            tmp_path / kind, recipe(dataclasses.replace(LORA, dropout=0.0), autocast=kind, gradient_checkpointing=True)
        )
        losses.append(run._one_step(Tally())["loss"])
        assert {weight.dtype for weight in run.model.parameters() if weight.requires_grad} == {torch.float32}
    assert losses[1] == pytest.approx(losses[0], rel=0.02) and losses[1] != losses[0]


def test_log_goes_to_tensorboard_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[tuple[str, int], float] = {}

    class Writer:
        def __init__(self, directory: str, purge_step: int) -> None:
            assert (directory, purge_step) == (str(tmp_path / "tensorboard"), 1)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            shown[name, step] = value

        def flush(self) -> None:
            pass

    module = type("module", (), {"SummaryWriter": Writer})
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", module)
    log = Log(tmp_path)
    log.keep_until(0)
    log.write({"step": 7, "loss": 1.5, "text_loss": None})
    assert shown == {("loss", 7): 1.5}
