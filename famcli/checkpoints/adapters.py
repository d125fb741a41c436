"""LoRA adapters in the format of PEFT, merged into the weights while these are loaded.

An adapter is a directory with ``adapter_config.json`` and ``adapter_model.safetensors``, as PEFT writes them. One that
``famcli train`` wrote has a FAM's embeddings besides (``fam.safetensors``) and says in ``famcli.json`` what base and
which attention they were trained with.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from famcli.checkpoints import huggingface
from famcli.checkpoints.checkpoint import Checkpoint
from famcli.checkpoints.weights import SafeTensor, Stored, list_safetensors
from famcli.errors import UserError, printable
from famcli.fields import read_fields, read_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CONFIG, WEIGHTS, FAM, OWN = "adapter_config.json", "adapter_model.safetensors", "fam.safetensors", "famcli.json"

# What each must be, where it is there: anything else is no plain sum of base and low-rank product.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    **dict.fromkeys(("fan_in_fan_out", "use_dora", "lora_bias", "use_qalora"), (False,)),
    **dict.fromkeys(
        (
            "modules_to_save",
            "trainable_token_indices",
            "layer_replication",
            "target_parameters",
            "alora_invocation_tokens",
            "use_bdlora",
            "arrow_config",
            "kasa_config",
            "monteclora_config",
            "velora_config",
        ),
        (None, [], {}),
    ),
}
_OTHER_BASE = re.compile("pissa.*|olora|loftq|corda|lora_ga", re.IGNORECASE)
"""Beginnings (``init_lora_weights``) that change the base's weights as well."""
_PART = re.compile(r"base_model\.model\.(?P<target>.+)\.lora_(?P<part>[AB])\.weight")


@dataclass(frozen=True)
class LowRank(Stored):
    """A tensor of a base with ``scale`` x ``up`` ``down`` added in float32, of shapes [out, r] and [r, in]."""

    base: Stored
    down: Stored
    up: Stored
    scale: float

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.base.files, *self.down.files, *self.up.files)

    def read(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        import torch

        up, down = self.up.read(device, torch.float32), self.down.read(device, torch.float32)
        return self.base.read(device, torch.float32).addmm_(up, down, alpha=self.scale).to(dtype)


@dataclass(frozen=True)
class Adapter:
    """An adapter's directory whose settings were read.

    Attributes:
        directory: where it is.
        base: what its base was called where it was trained, ``None`` where that is not said.
        base_sha256: hash of the base's weights, where it is said.
        fields: those of ``ModelConfig`` that it was trained with, where they are not the base's.
        settings: ``adapter_config.json``.
    """

    directory: Path
    base: str | None
    base_sha256: str | None
    fields: Mapping[str, Any]
    settings: Mapping[str, Any]

    def merged_into(self, checkpoint: Checkpoint) -> Checkpoint:
        """The base with the adapter: a checkpoint whose tensors are summed when they are read.

        Raises:
            UserError: the adapter does not fit, or holds anything but low-rank pairs of matrices.
        """
        file = self.directory / WEIGHTS
        tensors = dict(checkpoint.tensors)
        pairs = self._pairs(list_safetensors(file)) if self.settings else {}
        for target, parts in pairs.items():
            name = _decoder_name(target, checkpoint)
            base = tensors.get(name) if name else None
            if name is None or base is None:
                raise UserError(f"{file}: the base {checkpoint.path} has no tensor '{target}'")
            if len(parts) < 2:
                raise UserError(f"{file}: '{target}' has only one of lora_A and lora_B")
            down, up = parts["A"], parts["B"]
            rank = down.shape[0]
            if up.shape != (base.shape[0], rank) or down.shape != (rank, *base.shape[1:]):
                raise UserError(
                    f"{file}: '{target}' adds {list(up.shape)} x {list(down.shape)} to {list(base.shape)} of the base "
                    f"{checkpoint.path}"
                )
            about = (base.file, base.name, base.shape, base.dtype)
            tensors[name] = LowRank(*about, base, down, up, self._scale(target.removesuffix(".weight"), rank))
        memory: dict[str, Stored] = {}
        if (self.directory / FAM).exists():
            memory = {stored.name: stored for stored in list_safetensors(self.directory / FAM)}
        return replace(
            checkpoint,
            tensors=tensors | memory,
            settings=(self.directory / CONFIG,) if self.settings else (),
            of_memory=frozenset(memory),
        )

    def _pairs(self, stored: Iterable[SafeTensor]) -> dict[str, dict[str, SafeTensor]]:
        """Both matrices by the base's tensor they belong to, named as on the hub."""
        pairs: dict[str, dict[str, SafeTensor]] = {}
        for tensor in stored:
            match = _PART.fullmatch(tensor.name)
            if match is None:
                raise UserError(f"{tensor.file}: unexpected tensor '{tensor.name}'; famcli merges plain LoRA matrices")
            pairs.setdefault(f"{match['target']}.weight", {})[match["part"]] = tensor
        return pairs

    def _scale(self, module: str, rank: int) -> float:
        file = self.directory / CONFIG
        told = read_fields(_Scale, self.settings, str(file), others=True)
        alpha = told.lora_alpha
        for pattern, value in (told.alpha_pattern or {}).items():
            try:
                fits = re.match(rf"(.*\.)?({pattern})$", module)
            except (re.error, RecursionError, OverflowError) as error:
                raise UserError(f"{file}: field 'alpha_pattern' has '{printable(pattern)}': {error}") from error
            if fits:
                alpha = value
                break
        return alpha / (math.sqrt(rank) if told.use_rslora else rank)


def is_adapter(path: Path) -> bool:
    """``path`` is an adapter's directory and no model's."""
    return any(os.path.lexists(path / name) for name in (CONFIG, OWN)) and not (path / "config.json").exists()


def open_adapter(directory: Path) -> Adapter:
    """Reads the settings of an adapter and checks that it is a plain LoRA, or has weights of a memory alone.

    Raises:
        UserError: a file is missing or damaged, or a setting asks for something else than a sum.
    """
    own = _OwnFields()
    if os.path.lexists(directory / OWN):
        own = read_fields(_OwnFields, read_json(directory / OWN), str(directory / OWN), others=True)
    settings = {} if _has_memory_alone(directory) else _lora_settings(directory)
    base = own.base or read_fields(_Named, settings, str(directory / CONFIG), others=True).base_model_name_or_path
    return Adapter(directory, base, own.base_sha256, own.model or {}, settings)


def _has_memory_alone(directory: Path) -> bool:
    """The base's matrices stay as they are."""
    return all(os.path.lexists(directory / name) for name in (OWN, FAM)) and not os.path.lexists(directory / CONFIG)


def _lora_settings(directory: Path) -> dict[str, Any]:
    settings = read_json(
        directory / CONFIG, hint="give the directory that PEFT or `famcli train` wrote: --adapter DIR", nan=True
    )
    for name, allowed in _PLAIN.items():
        if name in settings and settings[name] not in allowed and settings[name] is not None:
            shown = printable(json.dumps(settings[name]))
            raise UserError(
                f"{directory / CONFIG}: field '{name}' is {shown}; famcli merges plain LoRA only",
                "merge it where it was made: PeftModel.from_pretrained(BASE, DIR).merge_and_unload()",
            )
    beginning = printable(str(settings.get("init_lora_weights", True)))
    if _OTHER_BASE.fullmatch(beginning):
        raise UserError(
            f"{directory / CONFIG}: field 'init_lora_weights' is '{beginning}', which changes the base itself",
            "save it converted to plain LoRA: save_pretrained(DIR, path_initial_model_for_weight_conversion=...)",
        )
    if not (directory / WEIGHTS).exists():
        other = next(iter(sorted(directory.glob("adapter_model.*"))), None)
        why = f": {other.name} can run code when it is opened" if other else ""
        raise UserError(f"{directory / WEIGHTS} is missing{why}", "save the adapter as safetensors")
    return settings


@dataclass(frozen=True)
class _Named:
    base_model_name_or_path: str | None = None


@dataclass(frozen=True)
class _Scale:
    lora_alpha: float = 8
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool | None = None


@dataclass(frozen=True)
class _OwnFields:
    base: str | None = None
    base_sha256: str | None = None
    model: dict[str, Any] | None = None


def _decoder_name(target: str, checkpoint: Checkpoint) -> str | None:
    try:
        return huggingface.decoder_name(target, checkpoint.config)
    except KeyError:
        return None
