"""From what a user calls a model to the model: preset names, directories and hub ids, with overrides."""

from __future__ import annotations

import importlib.resources
import re
from dataclasses import dataclass, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from famcli.errors import UserError, unknown_name
from famcli.models.config import ModelConfig

if TYPE_CHECKING:
    import torch

    from famcli.models.checkpoint import Checkpoint
    from famcli.models.decoder import Decoder
    from famcli.models.tokenizer import Tokenizer

DEVICES = ("auto", "cuda", "mps", "cpu")
DTYPES = ("auto", "float32", "bfloat16")

_PRESET_FIELDS = {"summary", "licence", "weights", "base", "parameters", "model"}
# A base checkpoint knows these of its own weights; no tensor shape would tell that a preset has them wrong.
_FROM_WEIGHTS = ("rope_theta", "norm_eps", "trained_context")


@dataclass(frozen=True)
class Preset:
    """A named model, ``configs/models/NAME.yaml``.

    Attributes:
        name: what the user types.
        summary: one line for listings.
        licence: of the weights, an SPDX identifier.
        base: hub id of the checkpoint whose weights it takes; ``None`` where they are bundled.
        parameters: number of weights, where the preset says it.
        config: shape and attention; ``None`` for a bundled preset, whose ``config.json`` says it.
    """

    name: str
    summary: str
    licence: str
    base: str | None
    parameters: int | None
    config: ModelConfig | None

    @property
    def download(self) -> str:
        """The command that gets the weights of ``base``."""
        return f"hf download {self.base}"


@dataclass(frozen=True)
class ModelSource:
    """A model that was found and checked; its weights are not in memory yet.

    Attributes:
        name: the spec as the user typed it.
        config: with overrides.
        checkpoint: where the weights lie.
    """

    name: str
    config: ModelConfig
    checkpoint: Checkpoint

    @property
    def untrained_fam(self) -> bool:
        """The model has a FAM that its weights know nothing of."""
        return self.checkpoint.lacks_fam(self.config)

    def load(self, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """Reads the weights.

        Raises:
            UserError: a file cannot be read.
        """
        from famcli.models.checkpoint import load_decoder

        decoder = load_decoder(self.checkpoint, self.config, device, dtype)
        digest = self.checkpoint.weights_sha256()
        return LoadedModel(self.name, decoder, self.checkpoint.tokenizer, digest, device, dtype, self.untrained_fam)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to read.

    Attributes:
        name: the spec as the user typed it, e.g. ``fam-tiny,memory_segments=1``.
        decoder: in evaluation mode; ``decoder.config`` is its ``ModelConfig``.
        tokenizer: what its ids mean.
        weights_sha256: see ``Checkpoint.weights_sha256``.
        device, dtype: where the weights are and what they are.
        untrained_fam: the FAM embeddings are drawn, not learned: the base checkpoint has none.
    """

    name: str
    decoder: Decoder
    tokenizer: Tokenizer
    weights_sha256: str
    device: torch.device
    dtype: torch.dtype
    untrained_fam: bool = False


def load_model(spec: str, device: str = "auto", dtype: str = "auto") -> LoadedModel:
    """Finds, checks and loads a model.

    Args:
        spec: ``NAME_OR_PATH[,FIELD=VALUE...]``, see ``find_model``.
        device: one of ``DEVICES``; ``auto`` is CUDA, else MPS, else the CPU.
        dtype: one of ``DTYPES``; ``auto`` is bfloat16 on CUDA for weights stored in 16 bits, and float32 otherwise.

    Raises:
        UserError: there is no such model, device or dtype, or its files are not usable.
    """
    source = find_model(spec)
    where = pick_device(device)
    return source.load(where, pick_dtype(dtype, where, source.checkpoint))


def find_model(spec: str) -> ModelSource:
    """Finds a model and checks everything about it but the values of its weights.

    Args:
        spec: ``NAME_OR_PATH[,FIELD=VALUE...]``: a preset name, a directory, or a hub id that is in the local hub
            cache; then fields of ``ModelConfig`` to override. A Hugging Face directory reads with ``full`` attention
            unless overridden, as its weights were trained to.

    Raises:
        UserError: there is no such model, its files are missing or not usable, or an override does not fit its weights.
    """
    from famcli.models.checkpoint import check_fits, open_checkpoint

    name, overrides = split_spec(spec)
    presets = {preset.name: preset for preset in list_presets()}
    preset = presets.get(name)
    directory = _find_directory(name, preset, presets)
    checkpoint = open_checkpoint(directory)
    config = checkpoint.config
    if preset and preset.config:
        config = replace(preset.config, **{field: getattr(config, field) for field in _FROM_WEIGHTS})
    trained = config
    config = config.override(overrides, f"model '{spec}'")
    if config.attention == "full" and trained.window is not None and config.trained_context is None:
        config = replace(config, trained_context=trained.window)  # what lies further back it has never seen at once
    check_fits(checkpoint, config)
    return ModelSource(spec, config, checkpoint)


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """``NAME,a=1,b=2`` -> (``NAME``, ``{"a": "1", "b": "2"}``).

    Raises:
        UserError: a part after the name is no ``field=value``.
    """
    name, *parts = spec.split(",")
    overrides = {}
    for part in parts:
        field, equals, value = part.partition("=")
        if not equals or not field.strip():
            raise UserError(
                f"model '{spec}': '{part}' is not FIELD=VALUE", f"for example {name or 'fam-tiny'},memory_segments=0"
            )
        overrides[field.strip()] = value.strip()
    return name.strip(), overrides


def list_presets() -> list[Preset]:
    """All presets by name.

    Raises:
        UserError: a preset's file is not valid.
    """
    folder = importlib.resources.files("famcli.configs") / "models"
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    return [_read_preset(file) for file in sorted(files, key=lambda file: file.name)]


def bundled_directory(name: str) -> Path:
    """Where the weights of a bundled preset are."""
    return Path(__file__).parent.parent / "weights" / name


def pick_device(device: str) -> torch.device:
    """The device for one of ``DEVICES``.

    Raises:
        UserError: this machine, or this build of PyTorch, has no such device.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if device not in available:
        raise unknown_name("device", device, DEVICES)
    if not available[device]:
        raise UserError(f"device '{device}' is not available here", "use --device auto")
    return torch.device(device)


def pick_dtype(dtype: str, device: torch.device, checkpoint: Checkpoint) -> torch.dtype:
    """The dtype for one of ``DTYPES``, see ``load_model``; raises ``UserError`` for any other."""
    import torch

    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    if dtype == "auto":
        dtype = "bfloat16" if device.type == "cuda" and checkpoint.half_precision else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def _read_preset(file: Traversable) -> Preset:
    where = f"model preset {file.name}"
    try:
        fields: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not valid YAML: {error}") from error
    if not isinstance(fields, dict):
        raise UserError(f"{where} must be a mapping")
    for name in fields.keys() - _PRESET_FIELDS:
        raise unknown_name(f"field in {where}:", name, _PRESET_FIELDS)
    missing = {"summary", "licence"} - fields.keys()
    if fields.get("weights") == "bundled":
        config = None
    else:
        missing |= {"base", "model"} - fields.keys()
        config = None if missing else ModelConfig.from_mapping(fields["model"], where)
    if missing:
        raise UserError(f"{where} lacks the field '{min(missing)}'")
    return Preset(
        file.name.removesuffix(".yaml"),
        fields["summary"],
        fields["licence"],
        fields.get("base"),
        fields.get("parameters"),
        config,
    )


def _find_directory(name: str, preset: Preset | None, presets: dict[str, Preset]) -> Path:
    if preset and preset.base:
        return _base_directory(preset, preset.base)
    if preset:
        directory = bundled_directory(name)
        if not directory.is_dir():
            raise UserError(f"the bundled weights of '{name}' are missing: no {directory}", "install famcli again")
        return directory
    path = Path(name).expanduser()
    if name and path.exists():
        return path
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        cached = _cached(name)
        if cached is None:
            raise UserError(
                f"no directory '{name}', and no model of that name in the local hub cache",
                f"if it is a model on the hub, get it with: hf download {name}",
            )
        return cached
    if "/" in name or name.startswith(("~", ".")):
        raise UserError(f"no directory '{name}'", "a model is a preset, a directory or a hub id: famcli list models")
    raise unknown_name("model", name, presets)


def _base_directory(preset: Preset, base: str) -> Path:
    """``models/NAME`` in the current directory, NAME the last part of the hub id; else the local hub cache."""
    local = Path("models") / base.rpartition("/")[2]
    if local.is_dir():
        return local
    directory = _cached(base)
    if directory is None:
        raise UserError(
            f"the weights of '{preset.name}' are not on this machine: {base}, neither in {local} nor in the hub cache",
            f"get them with: {preset.download}",
        )
    return directory


def _cached(hub_id: str) -> Path | None:
    """The hub cache's directory of a model; an interrupted download counts as none."""
    from famcli.models.huggingface import cached_directory

    directory = cached_directory(hub_id)
    if directory and not any(directory.glob("*.safetensors")) and not any(directory.glob("*.bin")):
        return None
    return directory
