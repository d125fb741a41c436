"""What a training run keeps to go on from: what it trains, its optimisers, and its place in the recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from famcli.errors import UserError
from famcli.files import open_regular, save_tensors

GO_ON = "make room and repeat the command with --resume: it goes on from the last checkpoint"

Optimizers = Sequence[torch.optim.Optimizer]


def write(path: Path, tensors: Mapping[str, Tensor], place: Mapping[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all.

    Args:
        path: the file.
        tensors: by name, those of ``state_of`` among them.
        place: JSON values.

    Raises:
        UserError: it cannot be written.
    """
    stored = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    save_tensors(stored, path, {"place": json.dumps(place)}, hint=GO_ON)


def state_of(optimizers: Optimizers) -> dict[str, Tensor]:
    """The state of optimisers that is in this process, by the number of the optimiser, that of the weight and a word.

    Where it is split, a weight has the same number in every process, and its state is in one of them.
    """
    found: dict[str, Tensor] = {}
    for i, optimizer in enumerate(optimizers):
        state = _here(optimizer).state
        for j, weight in enumerate(_weights(optimizer)):
            slots = state.get(weight, {})
            found |= {f"optimizer.{i}.{j}.{name}": t for name, t in slots.items() if isinstance(t, Tensor)}
    return found


def _here(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser, or the one inside that steps what is this process's."""
    inside: torch.optim.Optimizer = getattr(optimizer, "optim", optimizer)
    return inside


def _weights(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    groups = sorted(optimizer.param_groups, key=lambda group: group.get("place", 0))
    return [weight for group in groups for weight in group["params"]]


def read(path: Path, base: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The place and the tensors of a checkpoint.

    Args:
        path: the file.
        base: identifies the weights that the run began with.

    Raises:
        ValueError: it was trained from other weights; and what ``explained`` explains.
    """
    open_regular(path).close()
    with safe_open(path, framework="pt") as file:
        place = json.loads(file.metadata()["place"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if place.get("base", "") != base:
        raise ValueError("it was trained from other weights")
    return place, tensors


def restore(optimizers: Optimizers, tensors: Mapping[str, Tensor]) -> None:
    """Gives the optimisers those of ``tensors`` that are their state in this process, as ``state_of`` names them."""
    kept: dict[tuple[int, int], dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, of_weight, slot = name.split(".")
            kept.setdefault((int(number), int(of_weight)), {})[slot] = tensor
    for i, optimizer in enumerate(optimizers):
        inside = _here(optimizer)
        numbers = {weight: j for j, weight in enumerate(_weights(optimizer))}
        saved = inside.state_dict()
        own = (weight for group in inside.param_groups for weight in group["params"])
        for k, weight in enumerate(own):  # as PyTorch numbers them
            if slots := kept.get((i, numbers[weight])):
                saved["state"][k] = slots
        inside.load_state_dict(saved)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Whatever a damaged file raises is a ``UserError`` that names the checkpoint."""
    try:
        yield
    except (SafetensorError, OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise UserError(
            f"{path} is no checkpoint of this recipe: {reason}", "start over in another --output"
        ) from error
