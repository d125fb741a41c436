"""Training: sources are functions of their seed, side branches stay outside, a killed run ends at the same weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import small_config

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.models.decoder import Decoder
from famcli.training.batch import Batch
from famcli.training.loop import Trainer, from_scratch
from famcli.training.losses import Tally
from famcli.training.material import Material, PasskeySources, draw_repeat
from famcli.training.optimizers import orthogonalise
from famcli.training.recipe import KeyPlaces, Mixture, Optimizer, Phase, Recipe
from famcli.training.rehearsal import rehearse, strides
from famcli.training.sources import PlainText
from famcli.training.step import _Step, read_and_ask

TOKENIZER = ByteTokenizer()
CORPUS = np.frombuffer(b"It is a truth universally acknowledged. " * 40, np.uint8).astype(np.uint16)
MATERIAL = Material(TOKENIZER, CORPUS)


def recipe(optimizer: str = "muon", **phase: object) -> Recipe:
    fields = {
        "steps": 4,
        "mixture": Mixture(passkey=2, passkey_in_text=1, repeat=1, text=1),
        "block_size": 24,
        "blocks": 3,
        "questions": 2,
        "learning_rate": 0.003,
        "final_learning_rate": 0.001,
        "state_passing": 0.7,
        "fam_noise": 0.1,
        **phase,
    }
    first = Phase(**fields)  # type: ignore[arg-type]
    second = dataclasses.replace(first, block_size=16, blocks=4, steps=5)
    config = small_config(vocab_size=257, attention="fam", memory_segments=0, qkv_bias=True, fam_norm="rms")
    how = Optimizer(name=optimizer, warmup=3)  # type: ignore[arg-type]
    return Recipe(seed=5, model=config, phases=(first, second), optimizer=how, forget_above=9.0, checkpoint_every=3)


def trainer(directory: Path, how: Recipe) -> Trainer:
    return Trainer(how, from_scratch(how), MATERIAL, directory)


@pytest.mark.parametrize("seed", range(6))
def test_stream_is_one_prompt_however_it_is_cut(seed: int) -> None:
    source = PasskeySources(TOKENIZER).draw(np.random.default_rng(seed), KeyPlaces(), 50, 20, None)
    whole = source.tokens(0, 2000)
    cut = np.concatenate([source.tokens(start, 125) for start in range(0, 2000, 125)])
    assert (whole == cut).all()
    text, key = TOKENIZER.decode(whole), TOKENIZER.decode(source.question.answer).strip()
    known_from = source.question.known_from
    assert text[:known_from].endswith(f"The pass key is {key}. Remember it. {key} is the pass key.\n")
    assert text[source.question.told_from :].startswith(f"{key} is the pass key.\n")
    assert text.count("pass key is") == 1
    assert "The grass is green." in text[known_from:]


def test_key_hides_in_plain_text_as_well() -> None:
    source = PasskeySources(TOKENIZER).draw(np.random.default_rng(0), KeyPlaces(), 50, 20, PlainText(CORPUS, 7))
    rest = TOKENIZER.decode(source.tokens(source.question.known_from, 400))
    assert "universally" in rest and "grass" not in rest


def test_repeated_strings_repeat() -> None:
    source = draw_repeat(np.random.default_rng(1), TOKENIZER)
    period = len(source.unit)
    assert (source.tokens(0, 100) == source.tokens(3 * period, 100)).all()


def test_questions_leave_the_stream_as_it_was() -> None:
    how = recipe(fam_noise=0.0)
    model = Decoder(dataclasses.replace(how.model, block_size=24)).double()
    model.initialise(0)
    batch = Batch(how, MATERIAL)
    batch.begin(0, how.phases[0], first=True)
    with torch.no_grad():
        asked = read_and_ask(model, batch, how, how.phases[0], 0, tally := Tally()).state
        plain = model.prefill(batch.tokens(72), model.start(5))
    assert sum(tally.asked) > 0
    for with_questions, without in zip(asked.layers, plain.layers, strict=True):
        torch.testing.assert_close(with_questions["fam"], without["fam"], rtol=0, atol=1e-12)


def test_retention_is_what_updates_change_once_the_key_is_read() -> None:
    how = recipe(fam_noise=0.0, retention=1.0, mixture=Mixture(passkey=6, text=1), blocks=9)
    phase = how.phases[0]
    model = Decoder(dataclasses.replace(how.model, block_size=24)).double()
    model.initialise(0)
    batch = Batch(how, MATERIAL)
    batch.begin(0, phase, first=True)
    losses = read_and_ask(model, batch, how, phase, 0, Tally()).losses
    state, tokens, changes = model.start(7), batch.tokens(9 * 24), []
    for block in range(9):
        before = [layer["fam"] for layer in state.layers]
        state = model.prefill(tokens[:, block * 24 : (block + 1) * 24], state)
        for row, source in enumerate(batch.sources):
            if source.known_from is not None and source.known_from <= block * 24:
                pairs = zip(state.layers, before, strict=True)
                pairs = [(after["fam"][row], old[row]) for after, old in pairs]
                changes += [((a - b).square() / b.square().mean(-1, True)).mean() for a, b in pairs]
    assert changes
    assert losses.means()["retention"] == pytest.approx(torch.stack(changes).mean().item(), rel=1e-9)


def test_rows_carry_their_own_fam_and_text_on(tmp_path: Path) -> None:
    how = recipe(state_passing=1.0)
    run = trainer(tmp_path, how)
    run._one_step(Tally())
    carried = [fam.clone() for fam in run.batch.memory]
    offsets = [row.offset for row in run.batch.rows]
    run.batch.begin(1, how.phases[0], first=False)
    assert offsets == [72] * 5 and all(row.carried for row in run.batch.rows)
    state = run.batch.start(run.model)
    for layer, fam in zip(state.layers, carried, strict=True):
        assert not layer["fam_initial"].any()
        assert torch.equal(layer["fam"], fam) and not fam.requires_grad


def test_lost_streams_are_replaced(tmp_path: Path) -> None:
    how = dataclasses.replace(recipe(state_passing=1.0, questions=8), forget_above=0.0)
    run = trainer(tmp_path, how)
    run._one_step(Tally())
    carried = [row.carried for row in run.batch.rows]
    assert carried[3:] == [True, True], "sources that are never asked have nothing to lose"
    assert not all(carried[:3])


@pytest.mark.parametrize("cut", [[24], [10, 14], [1, 22, 1]])
def test_updating_again_is_reading_the_block_again(cut: list[int]) -> None:
    """In a model of one layer, where keys and values depend on nothing but the block's tokens."""
    config = dataclasses.replace(recipe().model, layers=1, block_size=24)
    model = Decoder(config).double()
    model.initialise(1)
    rng = torch.Generator().manual_seed(0)
    before, block = (torch.randint(257, (3, 24), generator=rng) for _ in range(2))
    with torch.no_grad():
        _, state = model.read(before, model.start(3))
        for part in block.split(cut, dim=1):
            _, state = model.read(part, state)
        if cut == [24]:  # a block read at one go leaves nothing in the state
            state.layers[0]["block_keys"][:], state.layers[0]["block_values"][:] = _keys_values(model, block)
        _, twice = model.read(torch.cat((block, block), dim=1), state.fork())
        rehearse(model, state, 2, 0.0, rng)
    torch.testing.assert_close(state.layers[0]["fam"], twice.layers[0]["fam"], rtol=0, atol=1e-12)
    torch.testing.assert_close(state.layers[0]["fam_keys"], twice.layers[0]["fam_keys"], rtol=0, atol=1e-12)


def _keys_values(model: Decoder, block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    layer = model._stack[0]
    return layer.attention.keys_values(
        layer.attention_norm(model.embedding(block)), model._geometry(0, 24, local=False).tokens
    )


def test_gradient_flows_through_a_rehearsal(tmp_path: Path) -> None:
    """The answers after it teach what the first update wrote: the FAM before all others gets a gradient from them."""
    model = Decoder(dataclasses.replace(recipe().model, block_size=24))
    model.initialise(1)
    tokens = torch.randint(257, (1, 48), generator=torch.Generator().manual_seed(0))
    _, state = model.read(tokens[:, :30], model.start(1))
    first = state.layers[0]["fam"].requires_grad_()
    first.retain_grad()
    _, state = model.read(tokens[:, 30:], state)
    rehearse(model, state, 9, 0.0, torch.Generator())
    latents, _ = model.read(tokens[:, :5], state)
    latents.square().sum().backward()
    assert first.grad is not None and first.grad.abs().max() > 0


def test_an_aged_memory_is_carried_on_as_if_blocks_had_been_read(tmp_path: Path) -> None:
    how = recipe(state_passing=1.0, rehearsal=50, rehearsal_weight=1.0, fam_noise=0.0, blocks=5, steps=12)
    run, jumps = trainer(tmp_path, how), []
    for _ in range(12):
        offsets = [row.offset for row in run.batch.rows] or [0] * 5
        line = run._one_step(Tally())
        assert (line["rehearsal_loss"] is None) or line["rehearsal_loss"] > 0
        jumps.append([row.offset - before for row, before in zip(run.batch.rows, offsets, strict=True)][:3])
        assert all(fam.isfinite().all() for fam in run.batch.memory)
    moved = [jump for step in jumps for jump in step if jump > 120]
    assert moved, "some memories were aged"
    assert all(jump % how.phases[0].block_size == 0 for jump in moved)
    assert not run.batch.aged


@pytest.mark.parametrize("most", [4, 16])
def test_no_more_streams_are_rehearsed_than_the_phase_says(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = recipe(mixture=Mixture(passkey=6), blocks=9, rehearsal=2, rehearsed_rows=most)
    run, rehearsed = trainer(tmp_path, how), []
    monkeypatch.setattr("famcli.training.step.rehearse", lambda _, state, *rest: rehearsed.append(state.batch))
    for _ in range(4):
        run._one_step(Tally())
    assert max(rehearsed) == min(most, 6)


def test_new_streams_begin_in_aged_memories(tmp_path: Path) -> None:
    """Three in four of those whose key does not stand at once, and no others."""
    how = recipe(
        waiting=40, waiting_weight=0.1, fam_noise=0.0, key_places=KeyPlaces(at_once=1, early=3, soon=0, later=0)
    )
    run, found = trainer(tmp_path, how), []
    for step in range(12):
        run.batch.begin(step, how.phases[0], first=True)
        begun = run.batch.start(run.model)
        state, waiting = begun.fork(), run.batch.waiting()
        _Step(run.model, run.batch, how, how.phases[0], step, Tally())._wait(state)
        changed = (state.layers[0]["fam"] != begun.layers[0]["fam"]).flatten(1).any(dim=1)
        assert all(torch.equal(changed, ~layer["fam_initial"]) for layer in state.layers)
        assert set(changed.nonzero().flatten().tolist()) <= set(waiting)
        found += [bool(changed[row]) for row in waiting]
    assert 0.5 < np.mean(found) < 0.95
    assert run._one_step(Tally())["waiting_loss"] is not None


def test_what_a_single_update_changes_is_a_loss(tmp_path: Path) -> None:
    """It is told of memories that hold a key, and brings no gradient of one update to the next."""
    how = recipe(state_passing=1.0, rehearsal=4, drift=1.0, drift_updates=9, fam_noise=0.0, blocks=5)
    run, drifts = trainer(tmp_path, how), []
    for _ in range(4):
        drifts.append(run._one_step(Tally())["drift_loss"])
    told = [drift for drift in drifts if drift is not None]
    assert told and all(np.log(1e-8) <= drift < np.log(10) for drift in told)


@pytest.mark.parametrize("updates", [1, 15, 16, 64, 2048])
def test_updates_taken_together_come_to_the_same(updates: int) -> None:
    """Where a FAM keeps much of itself, few large updates do what many small ones do."""
    fields = {"layers": 1, "block_size": 24, "fam_norm": "rms", "fam_scale": 4096.0}
    config = recipe().config.override(fields, "test")
    model = Decoder(config).double()
    model.initialise(1)
    assert sum(strides(model, updates)) == pytest.approx(updates)
    assert max(strides(model, updates)) <= 32
    tokens = torch.randint(257, (3, 48), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        state = model.start(3)
        for part in (tokens[:, :24], tokens[:, 24:40], tokens[:, 40:]):
            _, state = model.read(part, state)
        begun, one_by_one = state.layers[0]["fam"].clone(), state.fork()
        rehearse(model, state, updates)
        for _ in range(updates):
            model.update_again(one_by_one)
    moved = (one_by_one.layers[0]["fam"] - begun).norm()
    assert (state.layers[0]["fam"] - one_by_one.layers[0]["fam"]).norm() < 0.02 * moved


def test_the_scale_of_the_fam_grows_geometrically_in_a_phase() -> None:
    how = recipe(fam_scale=2.0, final_fam_scale=16.0)
    scales = [how.model_at(step).memory.fam_scale for step in range(4)]
    assert scales == pytest.approx([2, 4, 8, 16])
    assert how.model_at(1).block_size == 24
    assert recipe().model_at(3).memory.fam_scale == recipe().model.memory.fam_scale


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_killed_run_ends_at_the_same_weights(tmp_path: Path, optimizer: str) -> None:
    how = recipe(optimizer, rehearsal=6)
    unbroken = trainer(tmp_path / "unbroken", how).run(lambda line: None)
    broken = trainer(tmp_path / "broken", how)
    for _ in range(8):  # checkpoints are taken at 3 and 6: two steps are lost and taken again
        broken._one_step(Tally())
        if broken.step % 3 == 0:
            broken.save()
    resumed = trainer(tmp_path / "broken", how)
    resumed.resume()
    assert resumed.step == 6
    finished = resumed.run(lambda line: None)
    logged = (tmp_path / "broken" / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in logged] == ["step", "9"]
    for name, weight in unbroken.state_dict().items():
        assert torch.equal(weight, finished.state_dict()[name]), name


def test_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    run = trainer(tmp_path, recipe())
    run._one_step(Tally())
    run.save()
    saved = (tmp_path / "checkpoint.safetensors").read_bytes()
    with torch.no_grad():
        run.model.norm.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="step 1; the last good weights are"):
        run.run(lambda line: None)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == saved


@pytest.mark.parametrize("damage", ["shape", "cut"])
def test_checkpoint_that_does_not_fit_is_said(tmp_path: Path, damage: str) -> None:
    how = recipe()
    run = trainer(tmp_path, how)
    run._one_step(Tally())
    run.save()
    file = tmp_path / "checkpoint.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        how = dataclasses.replace(how, model=dataclasses.replace(how.model, ffn_width=24))
    with pytest.raises(UserError, match="is no checkpoint of this recipe"):
        trainer(tmp_path, how).resume()


def test_phases_to_come_may_change_but_not_the_batch_a_run_stopped_in(tmp_path: Path) -> None:
    how = recipe()
    run = trainer(tmp_path, how)
    for _ in range(4):  # the first phase
        run._one_step(Tally())
        run.save()
    first, second = how.phases
    wider = Mixture(passkey=7)
    later = trainer(tmp_path, dataclasses.replace(how, phases=(first, dataclasses.replace(second, mixture=wider))))
    later.resume()
    later._one_step(Tally())
    assert len(later.batch.rows) == 7
    longer = dataclasses.replace(first, mixture=wider, steps=6)
    with pytest.raises(UserError, match="after step 4 with 5 rows in the batch, where the recipe has 7"):
        trainer(tmp_path, dataclasses.replace(how, phases=(longer, second))).resume()


def test_learning_rate_is_linear_in_each_phase_after_the_warm_up() -> None:
    how = recipe()
    rates = [how.learning_rate(step) for step in range(how.steps)]
    assert rates[0] == pytest.approx(0.003 / 3)
    assert rates[3] == pytest.approx(0.001) and rates[4] == pytest.approx(0.003) and rates[-1] == pytest.approx(0.001)
    assert rates[6] == pytest.approx(0.002)


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(3, 20, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for shaped in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonalise(shaped))
        assert values.min() > 0.3 and values.max() < 1.3
        u, _, v = torch.linalg.svd(shaped, full_matrices=False)
        assert torch.nn.functional.cosine_similarity(orthogonalise(shaped), u @ v, dim=-1).min() > 0.9
