"""Recipes: what is wrong with one is said before anything starts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import small_config

from famcli.errors import UserError
from famcli.models.attention import rope_frequencies
from famcli.training.recipe import Mixture, Phase, Recipe
from famcli.training.recipe_file import load_recipe

RECIPES = Path(__file__).parent.parent / "configs" / "recipes"
PHASE = "{steps: 2, mixture: {text: 1}, blocks: 1, learning_rate: 0.1"


def load(tmp_path: Path, text: str) -> Recipe:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    return load_recipe(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("checkpoint_every: 1", "lacks the fields 'seed', 'phases'"),
        ("seed: one\nmodel: {}\nphases: []", "'seed' must be a whole number, not 'one'"),
        ("sede: 1", "unknown field in .*: 'sede'"),
        ("- 1", r"recipe.yaml must be a mapping of fields, not \[1\]"),
        ("seed: 1\nphases: []", "'phases' must be a list with at least one entry"),
        ("seed: 1\nphases: [{steps: -3}]", r"'phases\[0\].steps' must be at least 0, not -3"),
        ("optimizer: {name: sgd}", "'optimizer.name' must be one of adamw, muon, adafactor, not 'sgd'"),
        ("optimizer: {clip: .inf}", "'optimizer.clip' must be finite"),
        ("seed: [", "is not valid YAML: line 1, column 8"),
        ("model: fam-tiny", "'model' must be a mapping of fields or none, not 'fam-tiny'"),
        (
            "lora: {targets: [q_proj, query]}",
            r"'lora.targets\[1\]' must be one of q_proj, k_proj, .*down_proj, not 'query'",
        ),
        ("lora: {rank: 0}", "'lora': rank must be at least 1, not 0"),
        ("lora: {dropout: 1}", "'lora': dropout must be at least 0 and below 1, not 1"),
        ("autocast: fp8", "'autocast' must be one of none, bfloat16, not 'fp8'"),
        ("gradient_checkpointing: 1", "'gradient_checkpointing' must be true or false, not 1"),
        ("evaluate_blocks: [1, two]", r"'evaluate_blocks\[1\]' must be a whole number, not 'two'"),
        (f"seed: 1\nlog_every: 0\nphases: [{PHASE}}}]", "log_every must be at least 1, not 0"),
        (f"phases: [{PHASE}, state_passing: 0, rehearsal: 8}}]", "here there are none"),
        (f"phases: [{PHASE}, rehearsal: 8, rehearsed_rows: 0}}]", "rehearsed_rows must be at least 1, not 0"),
        (f"phases: [{PHASE}, state_passing: 1.5}}]", r"state_passing must be from 0 to 1, not 1.5"),
        (
            f"phases: [{PHASE}, state_passing_from: last}}]",
            r"'phases\[0\].state_passing_from' must be one of own, first, not 'last'",
        ),
        ("phases: [{mixture: {qa: 0.5}}]", r"'phases\[0\].mixture': qa must be a whole number of rows, not 0.5"),
        ("phases: [{mixture: {rows: 4}}]", "mixture': the mixture is empty"),
    ],
)
def test_bad_recipes_name_the_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, text)


def test_positions_of_a_block_are_no_fewer_than_its_tokens(tmp_path: Path) -> None:
    recipe = load(tmp_path, f"seed: 1\nphases: [{PHASE}, block_positions: 95}}]")
    assert recipe.with_model(small_config("fam", block_size=95)).phases[0].block_positions == 95
    with pytest.raises(UserError, match=r"phases\[0\]: block_positions must be at least the block_size of 96, not 95"):
        recipe.with_model(small_config("fam", block_size=96))


def test_numbers_may_be_written_as_people_write_them(tmp_path: Path) -> None:
    text = (RECIPES / "bswa-tiny.yaml").read_text()
    assert load(tmp_path, text.replace("text_loss_weight: 1.0", "text_loss_weight: 1e-2")).text_loss_weight == 0.01


def test_recipes_of_the_bundled_models_differ_in_attention_and_the_last_rates_alone() -> None:
    """Of the last four phases each model has the rates that are better for it."""
    fam, bswa = (load_recipe(RECIPES / f"{name}-tiny.yaml") for name in ("fam", "bswa"))
    assert fam.model and bswa.model and fam.model.attention == "fam" and bswa.model.attention == "bswa"
    last = [
        dataclasses.replace(of, learning_rate=by.learning_rate, final_learning_rate=by.final_learning_rate)
        for of, by in zip(bswa.phases[-4:], fam.phases[-4:], strict=True)
    ]
    assert dataclasses.replace(bswa, model=fam.model, phases=(*bswa.phases[:-4], *last)) == fam
    only_fam = {"attention": "fam", "fam_length": 16, "fam_norm": "rms", "fam_scale": 64}
    assert bswa.model.override(only_fam, "test") == fam.model


def test_phases_stretch_rope_until_the_model_is_what_it_shall_be(tmp_path: Path) -> None:
    model = small_config("fam", block_size=64, rope_scaling="llama3", rope_factor=8.0, rope_original_context=16)
    recipe = load(tmp_path, f"seed: 1\nphases: [{PHASE}, block_size: 16, rope_factor: 1}}, {PHASE}}}]").with_model(
        model
    )
    early, late = recipe.model_at(1), recipe.model_at(2)
    assert late == model and early == dataclasses.replace(model, block_size=16, rope_factor=1.0)
    plain = rope_frequencies(small_config("fam"), local=False)
    torch.testing.assert_close(rope_frequencies(early, local=False), plain, rtol=1e-12, atol=0)
    assert (rope_frequencies(late, local=False) < plain).any()
    with pytest.raises(UserError, match=r"phases\[0\]: rope_factor is 4, and the model's rope_scaling is none"):
        load(tmp_path, f"seed: 1\nphases: [{PHASE}, rope_factor: 4}}]").with_model(small_config("fam"))


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_recipe_can_be_read(file: Path) -> None:
    assert load_recipe(file).steps > 0


def test_what_a_phase_leaves_out_is_the_models(tmp_path: Path) -> None:
    config = small_config("fam", block_size=8)
    how = load(tmp_path, f"seed: 1\nphases: [{PHASE}}}, {PHASE}, block_size: 4}}]").with_model(config)
    assert [how.model_at(step).block_size for step in range(4)] == [8, 8, 4, 4]
    with pytest.raises(UserError, match=r"phases\[1\] does not fit the model: .*fam_length.* between 1 and block_size"):
        load(tmp_path, f"seed: 1\nphases: [{PHASE}}}, {PHASE}, block_size: 1}}]").with_model(config)


def test_rows_stand_in_the_order_of_the_kinds() -> None:
    mixture = Mixture(passkey=2, text=1, qa=1)
    rng = np.random.default_rng(0)
    assert [mixture.kind(row, rng) for row in range(mixture.size)] == ["passkey", "passkey", "text", "qa"]
    assert rng.random() == np.random.default_rng(0).random(), "chance is not asked"


def test_weights_draw_the_kind_of_each_row() -> None:
    mixture = Mixture(passkey=0.5, repeat_segment=2, text=1.5, rows=3)
    drawn = Counter(mixture.kind(seed % 3, np.random.default_rng(seed)) for seed in range(800))
    assert mixture.size == 3
    assert drawn == {
        kind: pytest.approx(n, abs=60) for kind, n in (("passkey", 100), ("repeat_segment", 400), ("text", 300))
    }


def test_rate_without_an_end_is_constant() -> None:
    phase = Phase(steps=5, mixture=Mixture(text=1), blocks=1, learning_rate=0.3)
    how = Recipe(seed=0, phases=(phase,), optimizer=dataclasses.replace(Recipe(0, (phase,)).optimizer, warmup=0))
    assert {how.learning_rate(step) for step in range(5)} == {0.3}
