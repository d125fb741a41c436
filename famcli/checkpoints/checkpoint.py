"""A decoder as files: what was found of it (``opening.py``), and whether it is what a config asks for.

This file does not import PyTorch; ``decoders.py`` reads the weights into memory, and writes them again.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from famcli.checkpoints.tokenizer import Tokenizer
from famcli.checkpoints.weights import Stored, combined_sha256
from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.shapes import weight_shapes

SHAPE_FIELDS = ("vocab_size", "width", "layers", "heads", "kv_heads", "head_width", "ffn_width", "tie_embeddings")
"""Fields of ``ModelConfig`` that the weights fix."""

_FULL = ("F32", "F64")
_OF_LAYER = re.compile(r"layers\.(\d{1,9})\.")
_OF_LAYER_MEMORY = re.compile(r"layers\.\d+\.memory\.")


@dataclass(frozen=True)
class Checkpoint:
    """A directory or file whose config and tensor headers were read and agree; the weights were not read yet.

    Attributes:
        path: where it is.
        config: shape and attention the weights were trained with.
        tokenizer: what its ids mean.
        tensors: by their names in ``Decoder.state_dict()``.
        settings: further files that say what the weights are, those of an adapter.
        of_memory: names of an adapter's tensors that are weights of a memory.
    """

    path: Path
    config: ModelConfig
    tokenizer: Tokenizer
    tensors: Mapping[str, Stored]
    settings: tuple[Path, ...] = ()
    of_memory: frozenset[str] = frozenset()

    @property
    def half_precision(self) -> bool:
        """The weights are stored in 16 bits or fewer."""
        return self.tensors["embedding.weight"].dtype not in _FULL

    def weights_sha256(self) -> str:
        """The hash of all files that determine the weights, see ``weights.combined_sha256``."""
        files = {file for stored in self.tensors.values() for file in stored.files}
        return combined_sha256(files | set(self.settings))

    def lacks_memory(self, config: ModelConfig) -> list[str]:
        """Weights of the memory that ``config`` asks for and nobody has trained."""
        return sorted(memory_weights(config).keys() - self.tensors.keys())


def check_fits(checkpoint: Checkpoint, config: ModelConfig) -> None:
    """Checks that a decoder of ``config`` can take the weights of ``checkpoint``.

    Raises:
        UserError: names the field or tensor and both shapes.
    """
    where = checkpoint.path
    for field in SHAPE_FIELDS:
        asked, trained = getattr(config, field), getattr(checkpoint.config, field)
        if asked != trained:
            raise UserError(f"model field '{field}' is {asked}, but the weights in {where} were trained with {trained}")
    _check_bounds(checkpoint, config)
    for name, shape in _expected_shapes(config).items():
        of_memory = name in memory_weights(config)
        if name in checkpoint.tensors or not of_memory:
            _check_shape(checkpoint, config, name, shape, of_memory)
    known = _expected_shapes(checkpoint.config).keys() | checkpoint.of_memory
    unexpected = sorted(checkpoint.tensors.keys() - known)
    if unexpected:
        stored = checkpoint.tensors[unexpected[0]]
        raise UserError(f"{stored.file}: unexpected tensor '{stored.name}'")


def _check_bounds(checkpoint: Checkpoint, config: ModelConfig) -> None:
    """Checks layers and widths against tensors before anything is made of their size, be it without memory.

    Raises:
        UserError: as ``check_fits``.
    """
    layers = {int(match[1]) for name in checkpoint.tensors if (match := _OF_LAYER.match(name))}
    first_absent = next(number for number in range(len(layers) + 1) if number not in layers)
    if config.layers > first_absent:
        raise UserError(
            f"{checkpoint.path} lacks the tensor 'layers.{first_absent}.*'; its config says {config.layers} layers"
        )
    for name, shape in {
        "embedding.weight": (config.vocab_size, config.width),
        "layers.0.attention.q_proj.weight": (config.heads * config.head_width, config.width),
        "layers.0.attention.k_proj.weight": (config.kv_heads * config.head_width, config.width),
        "layers.0.ffn.gate_proj.weight": (config.ffn_width, config.width),
    }.items():
        _check_shape(checkpoint, config, name, shape)


def _check_shape(
    checkpoint: Checkpoint, config: ModelConfig, name: str, shape: tuple[int, ...], of_memory: bool = False
) -> None:
    stored = checkpoint.tensors.get(name)
    if stored is None:
        raise UserError(f"{checkpoint.path} lacks the tensor '{name}' {list(shape)}")
    if stored.shape == shape:
        return
    reason = f"{stored.file}: tensor '{stored.name}' is {list(stored.shape)}, expected {list(shape)}"
    if rows := _row_field(name, config):
        trained = stored.shape[0]
        raise UserError(f"model field '{rows}' is {shape[0]}, but the weights were trained with {trained}; {reason}")
    if of_memory:
        raise UserError(
            f"the memory {config.memory.describe(config)} does not fit: the weights were trained with "
            f"'{name}' {list(stored.shape)}; {reason}"
        )
    raise UserError(reason)


def _row_field(weight: str, config: ModelConfig) -> str | None:
    """The field of the memory that says how many rows its embedding ``weight`` has, where that is clear.

    A memory does not tell; it is the whole number that has this value, of several the one named like the weight.
    """
    rows = config.memory.embeddings(config).get(weight)
    values = dataclasses.asdict(config.memory).items()
    fields = [name for name, value in values if type(value) is int and value == rows]
    if len(fields) > 1:
        fields = [name for name in fields if name.partition("_")[0] == weight.partition("_")[0]]
    return fields[0] if len(fields) == 1 else None


def memory_weights(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of the weights that the memory of ``config`` brings."""
    names = config.memory.embeddings(config).keys()
    shapes = _expected_shapes(config).items()
    return {name: shape for name, shape in shapes if name in names or _OF_LAYER_MEMORY.match(name)}


@lru_cache(maxsize=16)
def _expected_shapes(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """As weights are stored, whatever becomes of them when they are read."""
    return weight_shapes(config) or _made_shapes(config)


def _made_shapes(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Those of a decoder that is made without memory, whose config does not tell them."""
    from famcli.models.empty import empty_decoder

    decoder = empty_decoder(dataclasses.replace(config, weights="float"))
    return {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
