"""A decoder in memory: its weights read from a checkpoint, and written again as one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from famcli.checkpoints.checkpoint import Checkpoint, check_fits
from famcli.checkpoints.hub_tokenizer import HubTokenizer
from famcli.checkpoints.placement import PlacedDecoder
from famcli.checkpoints.tokenizer import Tokenizer
from famcli.checkpoints.weights import Stored
from famcli.errors import UserError
from famcli.files import save_tensors, write_text
from famcli.models import int8
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.models.empty import empty_decoder

_MEMORY_SEED = 0


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
