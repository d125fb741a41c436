"""Opens what a path names: famcli's own directory, a Hugging Face directory, or a GGUF file (``gguf.py``).

An own directory holds ``config.json`` (``{"format": "famcli", "tokenizer": ..., "model": {ModelConfig fields}}`` and
whatever else the writer wants to keep) and ``model.safetensors`` with the names of ``Decoder.state_dict()``. Only
safetensors are read: other weight files can run code when they are opened.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from famcli.checkpoints import huggingface
from famcli.checkpoints.checkpoint import Checkpoint, check_fits
from famcli.checkpoints.hub_tokenizer import HubTokenizer
from famcli.checkpoints.tokenizer import ByteTokenizer, Tokenizer
from famcli.checkpoints.weights import SafeTensor, list_safetensors, same_values
from famcli.errors import UserError, printable
from famcli.fields import read_fields, read_json
from famcli.inputs import check_file
from famcli.models.config import ModelConfig

logger = logging.getLogger(__name__)

_REFUSED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".npz")


def open_checkpoint(path: Path) -> Checkpoint:
    """Reads the config and the tensor headers of a directory of either format, or of a GGUF file, and checks that they
    agree.

    Raises:
        UserError: a file is missing, corrupt or of another kind, or a field or tensor is wrong, missing or unknown.
    """
    path = _only_gguf(path) or path
    check_file(path)
    if path.is_file():
        _refuse_pickles([path])
        if path.suffix != ".gguf":
            raise UserError(f"{path} is a file, and no .gguf", f"give the directory that holds it: {path.parent}")
        from famcli.checkpoints.gguf import open_gguf

        checkpoint = open_gguf(path)
    else:
        checkpoint = _open_directory(path)
    check_fits(checkpoint, checkpoint.config)
    return checkpoint


def _only_gguf(path: Path) -> Path | None:
    """The GGUF file of a directory that holds nothing else of a model."""
    if not path.is_dir() or (path / "config.json").exists():
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        raise UserError(f"{path} holds {len(files)} GGUF files", f"give one of them, for instance {files[0]}")
    return files[0] if files else None


def _open_directory(directory: Path) -> Checkpoint:
    file = directory / "config.json"
    fields = read_json(file, hint="a checkpoint is a directory with config.json and safetensors", nan=True)
    if fields.get("format") == "famcli":
        config, tokenizer = _own_config(fields, file)
        name_of, added = _own_name, 0.0
    elif "model_type" in fields:
        config = huggingface.decoder_config(fields, file)
        tokenizer = HubTokenizer.from_file(directory / "tokenizer.json", huggingface.token_fields(fields))
        name_of, added = huggingface.decoder_name, huggingface.norm_offset(fields)
    else:
        raise UserError(
            f"{file} has neither the field 'format' (famcli) nor 'model_type' (Hugging Face)",
            f"give a directory that `famcli train` wrote, or one of a {', '.join(huggingface.FAMILIES)} model",
        )
    tensors: dict[str, SafeTensor] = {}
    own = fields.get("format") == "famcli"
    for weights in weight_files(directory, own):
        for stored in list_safetensors(weights):
            try:
                name = name_of(stored.name, config)
            except KeyError:
                raise UserError(f"{weights}: unexpected tensor '{stored.name}'") from None
            if name is None:
                continue
            if other := tensors.get(name):
                raise UserError(
                    f"{weights}: tensor '{stored.name}' is there twice: {other.file} has '{other.name}'",
                    "keep the one that counts",
                )
            tensors[name] = replace(stored, added=added) if name.endswith("norm.weight") else stored
    return Checkpoint(directory, _with_ties(config, tensors, file), tokenizer, tensors)


def _with_ties(config: ModelConfig, tensors: dict[str, SafeTensor], file: Path) -> ModelConfig:
    """The config, whether its embeddings are tied as transformers decides it; ``tensors`` keeps one of two equal ones.

    The one matrix may have either name. Where there are two that differ, a config that says tied is wrong.
    """
    head, embedding = tensors.get("head.weight"), tensors.get("embedding.weight")
    if not config.tie_embeddings or head is None:
        return config
    if embedding is None:
        tensors["embedding.weight"] = head
    elif not same_values(embedding, head):
        logger.warning(
            "warning: %s says 'tie_word_embeddings', and '%s' in %s differs from '%s'; both count, as in transformers",
            *(file, head.name, head.file, embedding.name),
        )
        return replace(config, tie_embeddings=False)
    del tensors["head.weight"]
    return config


def _own_name(tensor: str, config: ModelConfig) -> str | None:
    return tensor


@dataclass(frozen=True)
class _OwnFields:
    tokenizer: Literal["bytes", "tokenizer.json"]
    model: ModelConfig


def _own_config(fields: Mapping[str, Any], file: Path) -> tuple[ModelConfig, Tokenizer]:
    own = read_fields(_OwnFields, fields, str(file), others=True)
    tokenizer: Tokenizer = ByteTokenizer()
    if own.tokenizer != ByteTokenizer.name:
        tokenizer = HubTokenizer.from_file(file.parent / "tokenizer.json", fields)
    return own.model, tokenizer


def weight_files(directory: Path, own: bool) -> list[Path]:
    """The files of the one set of weights that transformers reads; another that lies beside it is named.

    In an ``own`` directory there may be what training keeps to go on from.
    """
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.exists():
        read, files = single, [single]
    elif os.path.lexists(index):
        read, files = index, _indexed(index)
    else:
        _refuse_pickles(sorted(directory.iterdir()))
        raise UserError(f"{single} is missing")
    beside = [file for kind in ("*.safetensors", "*.gguf", "pytorch_model*.bin") for file in directory.glob(kind)]
    others = sorted(file.name for file in {*beside} - {*files} if not file.name.startswith("adapter_"))
    if read is single and index.exists() and _names_in(index) != [single.name]:
        others.insert(0, index.name)
    if others and not own:
        logger.warning(
            "warning: %s holds several sets of weights: famcli reads %s, as transformers does, and not %s",
            *(directory, read.name, ", ".join(others[:3]) + (f" and {len(others) - 3} more" if others[3:] else "")),
        )
    return files


def _indexed(index: Path) -> list[Path]:
    files = []
    for name in _names_in(index):
        if Path(name).name != name or not name.endswith(".safetensors") or not name.isprintable():
            raise UserError(
                f"{index}: field 'weight_map' names '{printable(name)}', which is no safetensors file beside it"
            )
        if not os.path.exists(index.with_name(name)):
            raise UserError(f"{index.with_name(name)} is missing, though {index.name} names it")
        files.append(index.with_name(name))
    return files


def _names_in(index: Path) -> list[str]:
    weight_map = read_json(index).get("weight_map")
    files = weight_map.values() if isinstance(weight_map, dict) else ()
    if not files or not all(isinstance(file, str) for file in files):
        raise UserError(f"{index}: field 'weight_map' must be an object of tensor and file names")
    return sorted(set(files))


def _refuse_pickles(files: list[Path]) -> None:
    for file in files:
        if file.suffix in _REFUSED:
            raise UserError(
                f"{file} is not a safetensors file; famcli reads no other, because they can run code when opened",
                "convert it where you trust it: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR)",
            )
