"""A decoder as files: what was found of it (``opening.py``), its weights read into memory, and written again."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from famcli.checkpoints.hub_tokenizer import HubTokenizer
from famcli.checkpoints.placement import PlacedDecoder
from famcli.checkpoints.tokenizer import Tokenizer
from famcli.checkpoints.weights import Stored, combined_sha256
from famcli.errors import UserError
from famcli.files import save_tensors, write_text
from famcli.models import int8
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder

SHAPE_FIELDS = ("vocab_size", "width", "layers", "heads", "kv_heads", "head_width", "ffn_width", "tie_embeddings")
"""Fields of ``ModelConfig`` that the weights fix."""

_FULL = ("F32", "F64")
_MEMORY_SEED = 0
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


def save_checkpoint(
    decoder: Decoder,
    tokenizer: Tokenizer,
    directory: Path,
    extra: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes ``decoder`` as a directory of famcli's own format, each file whole or not at all.

    Args:
        decoder: the weights and their config.
        tokenizer: what its ids mean.
        directory: made where it is missing; a checkpoint there is replaced.
        extra: further entries of ``config.json``, for instance the recipe; JSON values.
        dtype: what the tensors are stored as.

    Raises:
        UserError: its weights are rounded.
    """
    decoder.config.refuse_rounded("saved")
    names: dict[str, Any] = {"tokenizer": tokenizer.name}
    if isinstance(tokenizer, HubTokenizer):
        names = {"tokenizer": "tokenizer.json", **tokenizer.save(directory)}
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in decoder.state_dict().items()}
    save_tensors(tensors, directory / "model.safetensors", {"format": "pt"})
    content = {"format": "famcli", **names, "model": decoder.config.as_mapping(), **(extra or {})}
    write_text(directory / "config.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")


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


def load_decoder(
    checkpoint: Checkpoint,
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    placement: Sequence[torch.device] | None = None,
) -> Decoder:
    """Reads the weights, tensor by tensor, into a decoder of ``config``: there is never more than one copy of them.

    Embeddings of a memory that the weights lack are drawn, always the same, from the mean and deviation of the token
    embeddings; its weights in the layers begin as its module draws them. That is a start for training, not a memory.

    Args:
        checkpoint: the weights.
        config: fits them.
        device: where they go.
        dtype: what they become.
        placement: the device of each layer, where they are to be spread; see ``placement.place_layers``.

    Raises:
        UserError: the weights do not fit ``config``, a file cannot be read, or they are to be rounded and cannot be.
    """
    check_fits(checkpoint, config)
    int8.check_place(config, device, dtype)
    if placement:
        config.refuse_rounded("spread over devices")
    decoder = empty_decoder(config, PlacedDecoder if placement else Decoder)
    wanted = decoder.state_dict().keys()
    tensors = dict[str, Tensor]()
    for name, stored in checkpoint.tensors.items():
        if int8.is_rounded(name, wanted):
            tensors |= _rounded(name, stored, device)
        elif name in wanted:
            layer = re.match(r"layers\.(\d+)\.", name) if placement else None
            tensors[name] = stored.read(placement[int(layer[1])] if placement and layer else device, dtype)
    if lacking := checkpoint.lacks_memory(config):
        embedding = tensors["embedding.weight"]
        if config.weights == "int8":
            embedding = int8.restored(embedding, tensors["embedding.weight_scale"])
        begun = _untrained_memory(config, embedding)
        tensors |= {name: begun[name].to(device, dtype) for name in lacking}
    decoder.load_state_dict(tensors, assign=True)
    return decoder.eval()


def _rounded(name: str, stored: Stored, device: torch.device) -> dict[str, Tensor]:
    """A matrix in 8 bits, straight from the values as they are stored, not from these in bfloat16."""
    weight = stored.read(device, torch.float32)
    if not weight.isfinite().all():
        raise UserError(
            f"{stored.file}: tensor '{stored.name}' has values that are no finite numbers, which 8 bits cannot hold",
            "leave weights=int8 out",
        )
    return int8.as_kept(name, weight)


def memory_weights(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of the weights that the memory of ``config`` brings."""
    names = config.memory.embeddings(config).keys()
    shapes = _expected_shapes(config).items()
    return {name: shape for name, shape in shapes if name in names or _OF_LAYER_MEMORY.match(name)}


def _untrained_memory(config: ModelConfig, embedding: Tensor) -> dict[str, Tensor]:
    """A beginning for every weight of the memory, the same each time."""
    table = embedding.detach().to("cpu", torch.float32)
    weights: dict[str, Tensor] = {}
    for name, rows in config.memory.embeddings(config).items():
        noise = torch.randn(rows, table.shape[1], generator=torch.Generator().manual_seed(_MEMORY_SEED))
        weights[name] = table.mean(dim=0) + table.std(dim=0) * noise
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_MEMORY_SEED)
        for number in range(config.layers):
            if module := config.memory.layer_module(config, number):
                weights |= {f"layers.{number}.memory.{name}": w for name, w in module.state_dict().items()}
    return weights


class _NoInitialisation(TorchFunctionMode):
    """Weights are not drawn: others will replace them, and drawing without memory takes seconds of imports."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs.get("tensor", *args[:1])
        return function(*args, **kwargs)


def empty_decoder(config: ModelConfig, kind: type[Decoder] = Decoder) -> Decoder:
    """A decoder whose weights take no memory."""
    with torch.device("meta"), _NoInitialisation():
        return kind(config)


@lru_cache(maxsize=16)
def _expected_shapes(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """As weights are stored, whatever becomes of them when they are read."""
    decoder = empty_decoder(dataclasses.replace(config, weights="float"))
    return {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
