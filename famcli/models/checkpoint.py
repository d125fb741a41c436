"""Decoders as files: famcli's own directories, and Hugging Face directories.

An own directory holds ``config.json`` (``{"format": "famcli", "tokenizer": ..., "model": {ModelConfig fields}}`` and
whatever else the writer wants to keep) and ``model.safetensors`` with the names of ``Decoder.state_dict()``. Only
safetensors are read: other weight files can run code when they are opened.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from famcli.errors import UserError
from famcli.files import save_tensors, write_text
from famcli.models import huggingface
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.models.tokenizer import ByteTokenizer, Tokenizer

SHAPE_FIELDS = ("vocab_size", "width", "layers", "heads", "kv_heads", "head_width", "ffn_width", "tie_embeddings")
"""Fields of ``ModelConfig`` that the weights fix."""

_REFUSED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".npz")
_HALF = ("BF16", "F16")
_FAM_SEED = 0


@dataclass(frozen=True)
class Stored:
    """Where one tensor of a decoder lies.

    Attributes:
        file: the safetensors file.
        name, shape, dtype: of the tensor there; the dtype as safetensors spells it.
        offset: to be added to its values, see ``huggingface.norm_offset``.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """A directory whose config and tensor headers were read and agree; the weights themselves were not read yet.

    Attributes:
        directory: where it is.
        config: shape and attention the weights were trained with.
        tokenizer: what its ids mean.
        tensors: by their names in ``Decoder.state_dict()``.
    """

    directory: Path
    config: ModelConfig
    tokenizer: Tokenizer
    tensors: Mapping[str, Stored]

    @property
    def half_precision(self) -> bool:
        """The weights are stored in 16 bits."""
        return self.tensors["embedding.weight"].dtype in _HALF

    def weights_sha256(self) -> str:
        """SHA-256 of the safetensors file; of several, the SHA-256 of their lines as ``sha256sum`` prints them."""
        files = sorted({stored.file for stored in self.tensors.values()})
        digests = [_sha256(file) for file in files]
        if len(files) == 1:
            return digests[0]
        lines = "".join(f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True))
        return hashlib.sha256(lines.encode()).hexdigest()

    def lacks_fam(self, config: ModelConfig) -> bool:
        """``config`` wants a FAM and the weights have learned none."""
        return config.fam_slots > 0 and "fam_embedding" not in self.tensors


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
    """
    names: dict[str, Any] = {"tokenizer": tokenizer.name}
    if isinstance(tokenizer, huggingface.HubTokenizer):
        names["tokenizer"] = "tokenizer.json"
        names |= {"bos_token_id": tokenizer.text_start, "eos_token_id": tokenizer.end_of_text}
        write_text(directory / "tokenizer.json", tokenizer.definition)
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in decoder.state_dict().items()}
    save_tensors(tensors, directory / "model.safetensors", {"format": "pt"})
    content = {"format": "famcli", **names, "model": dataclasses.asdict(decoder.config), **(extra or {})}
    write_text(directory / "config.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def open_checkpoint(directory: Path) -> Checkpoint:
    """Reads the config and the tensor headers of ``directory``, of either format, and checks them against each other.

    Raises:
        UserError: a file is missing, corrupt or not safetensors, or a field or tensor is wrong, missing or unknown.
    """
    if directory.is_file():
        _refuse_pickles([directory])
        raise UserError(f"{directory} is a file", f"give the directory that holds it: {directory.parent}")
    file = directory / "config.json"
    fields = _read_json(file)
    if fields.get("format") == "famcli":
        config, tokenizer = _own_config(fields, file)
        name_of, norm_offset = _own_name, 0.0
    elif "model_type" in fields:
        config = huggingface.decoder_config(fields, file)
        tokenizer = huggingface.HubTokenizer(directory / "tokenizer.json", fields)
        name_of, norm_offset = huggingface.decoder_name, huggingface.norm_offset(fields)
    else:
        raise UserError(
            f"{file} has neither the field 'format' (famcli) nor 'model_type' (Hugging Face)",
            f"give a directory that `famcli train` wrote, or one of a {', '.join(huggingface.FAMILIES)} model",
        )
    tensors = {}
    for weights in _weight_files(directory):
        for stored in _stored_tensors(weights):
            try:
                name = name_of(stored.name, config)
            except KeyError:
                raise UserError(f"{weights}: unexpected tensor '{stored.name}'") from None
            if name is not None and not (name == "head.weight" and config.tie_embeddings):
                tensors[name] = replace(stored, offset=norm_offset) if name.endswith("norm.weight") else stored
    checkpoint = Checkpoint(directory, config, tokenizer, tensors)
    check_fits(checkpoint, config)
    return checkpoint


def check_fits(checkpoint: Checkpoint, config: ModelConfig) -> None:
    """Checks that a decoder of ``config`` can take the weights of ``checkpoint``.

    Raises:
        UserError: names the field or tensor and both shapes.
    """
    where = checkpoint.directory
    for field in SHAPE_FIELDS:
        asked, trained = getattr(config, field), getattr(checkpoint.config, field)
        if asked != trained:
            raise UserError(f"model field '{field}' is {asked}, but the weights in {where} were trained with {trained}")
    for name, shape in _expected_shapes(config).items():
        stored = checkpoint.tensors.get(name)
        if stored is None:
            if name == "fam_embedding":
                continue
            raise UserError(f"{where} lacks the tensor '{name}' {list(shape)}")
        if stored.shape != shape:
            reason = f"{stored.file}: tensor '{stored.name}' is {list(stored.shape)}, expected {list(shape)}"
            if name == "fam_embedding":
                raise UserError(
                    f"model field 'fam_length' is {config.fam_length}, but the weights were trained with "
                    f"{stored.shape[0]}; {reason}"
                )
            raise UserError(reason)
    unexpected = sorted(checkpoint.tensors.keys() - _expected_shapes(checkpoint.config).keys() - {"fam_embedding"})
    if unexpected:
        stored = checkpoint.tensors[unexpected[0]]
        raise UserError(f"{stored.file}: unexpected tensor '{stored.name}'")


def load_decoder(checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Decoder:
    """Reads the weights file by file, tensor by tensor, into a decoder of ``config``.

    Where ``config`` wants a FAM that the weights lack, its embeddings are drawn, always the same, from the mean and
    deviation of the token embeddings: a start for training, not a memory.

    Raises:
        UserError: the weights do not fit ``config``, or a file cannot be read.
    """
    check_fits(checkpoint, config)
    with torch.device("meta"):
        decoder = Decoder(config)
    wanted = decoder.state_dict().keys()
    for file in sorted({stored.file for stored in checkpoint.tensors.values()}):
        try:
            with safe_open(file, framework="pt", device=str(device)) as weights:
                for name, stored in checkpoint.tensors.items():
                    if stored.file == file and name in wanted:
                        # A copy, because the tensor may be a view of the mapped file, which could be replaced.
                        tensor = weights.get_tensor(stored.name)
                        if stored.offset:
                            tensor = tensor.float() + stored.offset
                        _place(decoder, name, tensor.to(device, dtype, copy=True))
        except (SafetensorError, OSError) as error:
            raise _corrupt(file, error) from error
    if checkpoint.lacks_fam(config):
        _place(decoder, "fam_embedding", _untrained_fam(decoder.embedding.weight, config.fam_slots))
    return decoder.eval()


def _place(decoder: Decoder, name: str, tensor: Tensor) -> None:
    decoder.load_state_dict({name: tensor}, strict=False, assign=True)


def _untrained_fam(embedding: Tensor, length: int) -> Tensor:
    table = embedding.detach().to("cpu", torch.float32)
    noise = torch.randn(length, table.shape[1], generator=torch.Generator().manual_seed(_FAM_SEED))
    return (table.mean(dim=0) + table.std(dim=0) * noise).to(embedding.device, embedding.dtype)


def _expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Decoder(config).state_dict().items()}


def _own_name(tensor: str, config: ModelConfig) -> str | None:
    return tensor


def _own_config(fields: Mapping[str, Any], file: Path) -> tuple[ModelConfig, Tokenizer]:
    for name, kind in (("tokenizer", str), ("model", dict)):
        if name not in fields:
            raise UserError(f"{file} lacks the field '{name}'")
        if not isinstance(fields[name], kind):
            raise UserError(f"{file}: field '{name}' must be {'text' if kind is str else 'an object'}")
    tokenizer: Tokenizer
    if fields["tokenizer"] == ByteTokenizer.name:
        tokenizer = ByteTokenizer()
    elif fields["tokenizer"] == "tokenizer.json":
        tokenizer = huggingface.HubTokenizer(file.parent / "tokenizer.json", fields)
    else:
        raise UserError(
            f"{file}: field 'tokenizer' must be '{ByteTokenizer.name}' or 'tokenizer.json', not '{fields['tokenizer']}'"
        )
    return ModelConfig.from_mapping(fields["model"], f"{file}, field 'model'"), tokenizer


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is missing", "a checkpoint is a directory with config.json and safetensors") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} must hold a JSON object")
    return content


def _weight_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        single = directory / "model.safetensors"
        if not single.exists():
            _refuse_pickles(sorted(directory.iterdir()))
            raise UserError(f"{single} is missing")
        return [single]
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index}: field 'weight_map' must be an object of tensor and file names")
    files = []
    for name in sorted(set(map(str, weight_map.values()))):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(f"{index}: field 'weight_map' names '{name}', which is no safetensors file beside it")
        if not (directory / name).exists():
            raise UserError(f"{directory / name} is missing, though {index.name} names it")
        files.append(directory / name)
    return files


def _refuse_pickles(files: list[Path]) -> None:
    for file in files:
        if file.suffix in _REFUSED:
            raise UserError(
                f"{file} is not a safetensors file; famcli reads no other, because they can run code when opened",
                "convert it where you trust it: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR)",
            )


def _stored_tensors(file: Path) -> list[Stored]:
    try:
        with safe_open(file, framework="pt") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 (not a mapping)
            return [Stored(file, name, tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()]
    except (SafetensorError, OSError) as error:
        raise _corrupt(file, error) from error


def _corrupt(file: Path, error: Exception) -> UserError:
    return UserError(f"{file} is not a whole safetensors file: {error}", "get the file again")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
