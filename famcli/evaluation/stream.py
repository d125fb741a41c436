"""Reads a long text once; its state is kept on the way, so that a killed run goes on in the middle of it."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from famcli.errors import GO_ON, UserError
from famcli.files import target_of, temporary_files
from famcli.models.stream import State, computed
from famcli.seams import Ids

if TYPE_CHECKING:
    from famcli.models.stream import StreamModel

STATE_NAME = "state.safetensors"
STATES = "states"
"""The folder of a run where workers keep the states of what they are reading."""
KEEP_EVERY = 64
"""Blocks read between two states that are kept."""


class StateKeeper:
    """The state of the document, or batch of prompts, that a run is reading, in ``state.safetensors`` of its directory.

    Args:
        directory: the run's, or one in it; ``None`` keeps nothing.
        name: of the file.

    Attributes:
        earlier: seconds that earlier processes took for what was recalled since ``begin``.
    """

    def __init__(self, directory: Path | None, name: str = STATE_NAME) -> None:
        self.path = directory / name if directory else None
        self.begin()

    def begin(self) -> None:
        """Counts ``seconds`` from here."""
        self.earlier, self._begun = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since ``begin``, those of earlier processes included."""
        return self.earlier + time.perf_counter() - self._begun

    def keep(self, of: str, state: State, extra: dict[str, Tensor]) -> None:
        """Keeps the state of the reading called ``of``, and tensors that go with it, in place of the one before.

        Raises:
            UserError: it cannot be written.
        """
        if self.path is None:
            return
        try:
            target_of(self.path, self.path.parent.parent)
            state.save(self.path, {"of": of, "seconds": repr(self.seconds)}, extra)
        except OSError as error:  # of a state that another package saves
            raise UserError(f"cannot write {self.path}: {error.strerror or error}", GO_ON) from error
        except UserError as error:
            raise UserError(error.message, GO_ON) from error

    def recall(self, of: str, model: StreamModel[Any]) -> tuple[State, dict[str, Tensor]] | None:
        """The state kept of the reading called ``of``, if there is one; any other is of no use any more."""
        if self.path is None or not self.path.exists():
            return None
        try:
            state, metadata, extra = model.load_state(self.path)
        except UserError:
            self.forget()
            return None
        if metadata.get("of") != of:
            return None
        self.earlier += float(metadata.get("seconds", 0))
        return state, extra

    def forget(self) -> None:
        """Removes what was kept, and what a process that was killed in ``keep`` left."""
        if self.path:
            for left in (self.path, *temporary_files(self.path)):
                left.unlink(missing_ok=True)


def forget_states(directory: Path) -> None:
    """Removes all states that a run kept."""
    StateKeeper(directory).forget()
    folder = directory / STATES
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Prefix:
    """A document that has been read, for prompts that begin with it.

    Attributes:
        state: where it left one stream.
        digest: hash of its tokens.
        tokens: how many they are.
        computed: how many of them the model computed.
    """

    state: State
    digest: hashlib._Hash
    tokens: int
    computed: int


class Chunk(NamedTuple):
    """Token ids ``start`` .. ``stop - 1`` of a text, within one block; ``keep``: the state is kept after it."""

    start: int
    stop: int
    keep: bool


def chunks(start: int, length: int, block_size: int) -> list[Chunk]:
    """A text from ``start``, where a chunk begins, to its end, a block at a time; some end where the state is kept."""
    every = block_size * KEEP_EVERY
    return [
        Chunk(at, min(at + block_size, length), (at + block_size) % every == 0 and at + block_size < length)
        for at in range(start, length, block_size)
    ]


def token_digest(ids: Ids) -> hashlib._Hash:
    """SHA-256 over token ids as little-endian 64-bit integers."""
    return hashlib.sha256(np.ascontiguousarray(ids, "<i8").data)


def to_device(ids: Ids, model: StreamModel[Any]) -> Tensor:
    """Token ids on the device of the decoder's weights.

    Raises:
        UserError: one of them has no embedding.
    """
    if ids.size and int(ids.max()) >= model.vocab_size:
        raise UserError(
            f"the tokenizer gives token {int(ids.max())}, but the model has only {model.vocab_size}: "
            "tokenizer and weights do not belong together"
        )
    return torch.from_numpy(ids).to(model.device)


@torch.no_grad()  # not inference mode: what the decoder keeps from here on must stay usable in training
def read_document(model: StreamModel[Any], ids: Ids, keeper: StateKeeper, advance: Callable[[int], None]) -> Prefix:
    """Reads a document for the prompts that begin with it, or goes on reading it.

    Args:
        model: the model; inputs go to its device.
        ids: [t] token ids.
        keeper: keeps the state on the way.
        advance: called with the number of tokens after each chunk.
    """
    digest = token_digest(ids)
    name = f"prefix {digest.hexdigest()}"
    kept = keeper.recall(name, model)
    state = kept[0] if kept else model.start(1)
    if state.tokens_read:
        advance(state.tokens_read)
    for chunk in chunks(state.tokens_read, len(ids), model.chunk_size):
        state = model.prefill(to_device(ids[None, chunk.start : chunk.stop], model), state)
        advance(chunk.stop - chunk.start)
        if chunk.keep:
            keeper.keep(name, state, {})
    return Prefix(state, digest, len(ids), computed(model, 0, len(ids)))
