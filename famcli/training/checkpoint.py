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


def write(path: Path, tensors: Mapping[str, Tensor], optimizers: Optimizers, place: Mapping[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all.

    Args:
        path: the file.
        tensors: by name; none begins with ``optimizer.``.
        optimizers: whose state is kept.
        place: JSON values.

    Raises:
        UserError: it cannot be written.
    """
    kept = dict(tensors)
    for i, optimizer in enumerate(optimizers):
        for j, slots in optimizer.state_dict()["state"].items():
            kept |= {f"optimizer.{i}.{j}.{name}": t for name, t in slots.items() if isinstance(t, Tensor)}
    stored = {name: t.detach().cpu().contiguous() for name, t in kept.items()}
    save_tensors(stored, path, {"place": json.dumps(place)}, hint=GO_ON)


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
    """Gives the optimisers the state that ``write`` kept of them."""
    for i, optimizer in enumerate(optimizers):
        saved = optimizer.state_dict()
        for name, tensor in tensors.items():
            if name.startswith(f"optimizer.{i}."):
                _, _, j, slot = name.split(".")
                saved["state"].setdefault(int(j), {})[slot] = tensor
        optimizer.load_state_dict(saved)


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
