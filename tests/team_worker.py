"""One process of those that ``test_team`` starts together: it trains every recipe there is, and keeps what came of it.

python team_worker.py FOLDER
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import torch
from small_models import small_config
from test_training import MATERIAL, recipe

from famcli.errors import UserError
from famcli.training import step
from famcli.training.checkpoint import state_of
from famcli.training.evaluate import evaluate_recall
from famcli.training.loop import Trainer, from_scratch
from famcli.training.recipe import KeyPlaces, Mixture, Recipe
from famcli.training.team import ALONE, Team, join

KINDS = Mixture(passkey=2, passkey_in_text=1, repeat=1, text=1, repeat_segment=1, fact=1)
"""Seven rows, which two processes cannot share evenly."""
ALL = {
    "mixture": KINDS,
    "blocks": 5,
    "retention": 0.5,
    "rehearsal": 6,
    "rehearsed_rows": 2,
    "waiting": 20,
    "waiting_weight": 0.1,
    "drift": 0.1,
    "drift_updates": 5,
    "key_places": KeyPlaces(at_once=1, early=1, soon=1, later=0),
}
KEYS_AT_ONCE = KeyPlaces(at_once=1, soon=0, later=0)


def _changed(how: Recipe, **fields: Any) -> Recipe:
    first, second = how.phases
    phases = (dataclasses.replace(first, steps=3), dataclasses.replace(second, steps=2))
    return dataclasses.replace(how, phases=phases, segment_length=10, forget_above=5.6, evaluate_streams=3, **fields)


RECIPES = {
    "everything": _changed(recipe("adamw", **ALL)),
    "muon, blocks read again": _changed(recipe("muon", mixture=KINDS), gradient_checkpointing=True),
    "adafactor": _changed(recipe("adafactor", mixture=KINDS)),
    "the first row's memory": _changed(recipe(state_passing_from="first", rehearsal=4)),
    "kinds by weights": _changed(recipe(mixture=Mixture(passkey=1, text=1, rows=3))),
    # one key: the second process has no question, and nothing to rehearse
    "one row asked": _changed(
        recipe(mixture=Mixture(passkey=1, text=1), rehearsal=4, key_places=KEYS_AT_ONCE), text_loss_weight=0.0
    ),
    "no memory": _changed(recipe(fam_noise=0.0), model=small_config("bswa", vocab_size=257, memory_segments=1)),
}
BROKEN_AT = 2
"""The step of the checkpoint from which a training is gone on with."""
RESUMED = ("everything", "muon, blocks read again")
SPLIT = ("everything", "muon, blocks read again", "adafactor", "one row asked")
"""Trained as well with the optimiser's state shared out among the processes."""


def make_trainer(how: Recipe, directory: Path, team: Team, split: bool = False) -> Trainer:
    step.LOST = 99.0  # weights that know nothing teach by rehearsal as well
    return Trainer(how, from_scratch(how).double(), MATERIAL, directory, team=team, split=split)


def train(how: Recipe, directory: Path, team: Team = ALONE, split: bool = False) -> dict[str, Any]:
    """Trains to the end; gives the lines of the log, the first gradient, and what there is at last."""
    trainer = make_trainer(how, directory, team, split)
    lines, gradient = [], {}
    while trainer.step < how.steps:
        lines.append(trainer._one_step(trainer._tally))
        if trainer.step == 1:
            gradient = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
        if trainer.step == BROKEN_AT:
            trainer.save()
    return {"lines": lines, "gradient": gradient, **what_is_left(trainer)}


def go_on(how: Recipe, directory: Path, team: Team = ALONE, split: bool = False) -> dict[str, Any]:
    """Goes on from the checkpoint in ``directory`` to the end."""
    trainer = make_trainer(how, directory, team, split)
    trainer.resume()
    lines = []
    while trainer.step < how.steps:
        lines.append(trainer._one_step(trainer._tally))
    return {"lines": lines, "written_by": trainer.written_by, **what_is_left(trainer)}


def what_is_left(trainer: Trainer) -> dict[str, Any]:
    return {
        "weights": {name: weight.clone() for name, weight in trainer.model.state_dict().items()},
        "state": {name: t.clone() for name, t in state_of(trainer.optimizers).items()},
        "rows": trainer.batch.state_dict(),
        "memory": trainer.batch.whole_memory(),
        "tally": trainer._tally.of_all(trainer.team),
        "tokens": trainer.tokens,
        "recall": evaluate_recall(trainer.model, trainer.recipe, trainer.material, trainer.team),
    }


def disagreement(how: Recipe, directory: Path, team: Team) -> str:
    """What is said where the second process has another recipe."""
    other = dataclasses.replace(how, log_every=how.log_every + team.rank)
    try:
        make_trainer(other, directory, team).run(lambda line: None)
    except UserError as error:
        return error.message
    return ""


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    team = join("cpu")
    found: dict[str, Any] = {}
    for name, how in RECIPES.items():
        found[name] = train(how, folder / name, team)
    for name in RESUMED:
        found[f"{name}, resumed"] = go_on(RECIPES[name], folder / name, team)
    for name in SPLIT:
        found[f"{name}, split"] = train(RECIPES[name], folder / f"{name}, split", team, split=True)
    for name in RESUMED:
        found[f"{name}, split, resumed"] = go_on(RECIPES[name], folder / f"{name}, split", team, split=True)
    found["split again"] = go_on(RECIPES["everything"], folder / "everything", team, split=True)
    found["disagreement"] = disagreement(RECIPES["no memory"], folder / "disagreement", team)
    torch.save(found, folder / f"found-{team.rank}.pt")
    os._exit(command(folder))


def command(folder: Path) -> int:
    """The command line in every process of a team."""
    from famcli.cli.main import main as famcli

    given = ["--recipe", str(folder / "how.yaml"), "--output", str(folder / "command"), "--device", "cpu"]
    return famcli(["train", *given, "--threads", "1"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
