"""LoRA adapters through ``peft``, and the directory they are written to, which ``peft`` and famcli both read."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from famcli.checkpoints.checkpoint import memory_weights
from famcli.errors import UserError
from famcli.files import save_tensors, write_text
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.training.recipe import Lora

if TYPE_CHECKING:
    from peft import LoraConfig

_ADAPTER = re.compile(r"layers\.(\d+)\.(attention|ffn)\.(\w+)\.lora_([AB])\.default\.weight")
_THEIRS = {"attention": "self_attn", "ffn": "mlp"}


@dataclass(frozen=True)
class Base:
    """The model that is adapted.

    Attributes:
        name: what ``--model`` takes.
        sha256: of its weights.
        config: its own, without the changes it is trained with.
    """

    name: str
    sha256: str
    config: ModelConfig


def add_lora(model: Decoder, lora: Lora, seed: int, matrices: torch.dtype | None = None) -> None:
    """Gives ``model`` adapters, which change nothing yet; they and the memory's weights alone are left to train.

    Args:
        model: the base.
        lora: what adapters.
        seed: draws them.
        matrices: a type to bring the frozen matrices to. With that of ``torch.autocast`` nothing is computed otherwise,
            but autocast, which keeps no copy of what is frozen, need not make a new one at every use.

    Raises:
        UserError: ``peft`` is not installed.
    """
    config = _peft_config(lora, None)
    of_memory = memory_weights(model.config)
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    for name, weight in model.named_parameters():
        if name in of_memory:
            weight.requires_grad_(True)
    for module in model.modules():
        if matrices and isinstance(module, torch.nn.Linear) and not module.weight.requires_grad:
            module.to(matrices)


def save_adapter(model: Decoder, lora: Lora, base: Base, directory: Path, trained: Mapping[str, Any]) -> None:
    """Writes the adapters of ``model``, by the names of the Hugging Face model, and the weights of its memory.

    Args:
        model: with the adapters that ``add_lora`` gave it.
        lora: as it was given.
        base: what is adapted.
        directory: gets ``adapter_config.json``, ``adapter_model.safetensors``, ``fam.safetensors`` and ``famcli.json``.
        trained: what ``famcli.json`` says of the training; JSON values.
    """
    weights = model.state_dict()
    save_tensors(_peft_tensors(weights), directory / "adapter_model.safetensors", {"format": "pt"})
    with tempfile.TemporaryDirectory() as folder:
        _peft_config(lora, base.name).save_pretrained(folder)
        fields = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
    # peft keeps a set of targets, whose order differs from run to run.
    fields |= {"target_modules": sorted(fields["target_modules"]), "inference_mode": True}
    write_text(directory / "adapter_config.json", json.dumps(fields, indent=2, sort_keys=True) + "\n")
    save_memory(model, base, directory, trained)


def save_memory(model: Decoder, base: Base, directory: Path, trained: Mapping[str, Any]) -> None:
    """Writes the weights of the memory of ``model``: an adapter of their own where nothing else was trained.

    Args:
        model: what was trained.
        base: what it was trained on.
        directory: gets ``fam.safetensors`` and ``famcli.json``.
        trained: what ``famcli.json`` says of the training; JSON values.
    """
    weights = model.state_dict()
    if of_memory := {name: _stored(weights[name]) for name in memory_weights(model.config)}:
        save_tensors(of_memory, directory / "fam.safetensors")
    ours, theirs = model.config.as_mapping(), base.config.as_mapping()
    about = {
        "format": "famcli-adapter",
        "base": base.name,
        "base_sha256": base.sha256,
        "model": {name: value for name, value in ours.items() if name not in theirs or value != theirs[name]},
        "trained": dict(trained),
    }
    write_text(directory / "famcli.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")


def _peft_config(lora: Lora, base: str | None) -> LoraConfig:
    try:
        from peft import LoraConfig
    except ImportError:
        raise UserError("LoRA needs the package peft", "pip install 'famcli[train]'") from None
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        base_model_name_or_path=base,
        task_type="CAUSAL_LM",
    )


def _peft_tensors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapters among ``weights`` by the names that ``peft`` gives those of the Hugging Face model."""
    tensors = {}
    for name, tensor in weights.items():
        if match := _ADAPTER.fullmatch(name):
            layer, part, matrix, side = match.groups()
            place = f"base_model.model.model.layers.{layer}.{_THEIRS[part]}.{matrix}.lora_{side}.weight"
            tensors[place] = _stored(tensor)
    return tensors


def _stored(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()
