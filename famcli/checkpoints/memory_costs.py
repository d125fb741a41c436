"""What each memory would take on a model, by arithmetic from its config: no weights are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from famcli.checkpoints.checkpoint import memory_weights
from famcli.checkpoints.naming import split_name
from famcli.checkpoints.registry import find_model, list_presets, split_spec
from famcli.checkpoints.sources import CheckpointSource
from famcli.errors import UserError
from famcli.models.config import ModelConfig
from famcli.models.cost import state_values, state_values_per_token
from famcli.models.memories import memory_entry_points, memory_kind
from famcli.models.memories.bswa import Bswa
from famcli.models.products import chunk, known

FLOAT32 = 4
LATE = 1 << 12
"""Blocks before the one whose operations are counted: whatever a memory does with its first blocks is over."""


@dataclass(frozen=True)
class MemoryCost:
    """A memory on one model, with as many segments and sinks as that model's own has, or ``bswa`` by default.

    Attributes:
        name, summary: of the memory.
        described: name and sizes.
        own: it is the model's own memory, with the model's fields; others have their defaults.
        state_bytes: of one stream, in float32; ``None`` where it grows.
        state_bytes_per_token: by which it grows.
        parameters: weights of its own.
        block_operations: floating point operations of the matrix products of reading a block, logits left out; ``None``
            where they grow with the text, or the memory does not say.
        over_bswa: these against those of ``bswa``, less one; ``None`` where one of them is not known.
        receptive_field: tokens that can influence an output; ``None`` where there is no bound.
    """

    name: str
    summary: str
    described: str
    own: bool
    state_bytes: int | None
    state_bytes_per_token: int
    parameters: int
    block_operations: int | None
    over_bswa: float | None
    receptive_field: int | None


def config_of(spec: str) -> ModelConfig:
    """The config of ``NAME[,FIELD=VALUE...]``; a preset has one whether or not its weights are here.

    Raises:
        UserError: as ``find_model``, or the model is of another package, which has no memory to exchange.
    """
    name, fields = split_spec(split_name(spec)[0])
    preset = next((preset for preset in list_presets() if preset.name == name), None)
    if preset is not None and preset.config is not None and "adapter" not in fields:
        return preset.config.override(fields, f"model '{spec}'")
    source = find_model(spec)
    if not isinstance(source, CheckpointSource):
        raise UserError(f"{spec} is a model of another package and has no memory to exchange", "famcli list models")
    return source.config


def memory_costs(config: ModelConfig, left_out: Callable[[UserError], None]) -> list[MemoryCost]:
    """Every memory that is installed on a model of ``config``; ``left_out`` is told of those that do not fit."""
    base = _operations(_with(config, "bswa"))
    costs = []
    for name in memory_entry_points():
        try:
            costs.append(_cost(_with(config, name), config.attention, base))
        except UserError as error:
            left_out(error)
    return costs


def _with(config: ModelConfig, attention: str) -> ModelConfig:
    """The model with another memory that has the window of its own, or of ``bswa``, and defaults for the rest."""
    fields, plain = memory_kind(attention).__dataclass_fields__, Bswa()
    names = [name for name in ("memory_segments", "sinks") if name in fields]
    window: dict[str, Any] = {name: getattr(config.memory, name, getattr(plain, name)) for name in names}
    return config.override({"attention": attention, **window}, f"memory '{attention}'")


def _cost(config: ModelConfig, own: str, base: int | None) -> MemoryCost:
    memory, operations = config.memory, _operations(config)
    return MemoryCost(
        name=memory.name,
        summary=memory.summary,
        described=memory.describe(config),
        own=memory.name == own,
        state_bytes=None if memory.whole else FLOAT32 * state_values(config),
        state_bytes_per_token=FLOAT32 * state_values_per_token(config),
        parameters=sum(math.prod(shape) for shape in memory_weights(config).values()),
        block_operations=operations,
        over_bswa=operations / base - 1 if operations and base else None,
        receptive_field=memory.receptive_field(config),
    )


def _operations(config: ModelConfig) -> int | None:
    """Of a block, once the memory is full."""
    if config.memory.whole or not known(config):
        return None
    return chunk(config, LATE * config.block_size, config.block_size, output=True).operations
