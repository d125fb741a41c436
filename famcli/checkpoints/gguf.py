"""GGUF files, as llama.cpp keeps models: their metadata as a config, their tensors dequantised one at a time.

The format is read by the package ``gguf`` of the llama.cpp project.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from famcli.checkpoints import huggingface
from famcli.checkpoints.checkpoint import Checkpoint
from famcli.checkpoints.gguf_fields import check_known
from famcli.checkpoints.gguf_tokenizer import read_tokenizer
from famcli.checkpoints.weights import Stored
from famcli.errors import UserError, printable
from famcli.inputs import check_file
from famcli.models.config import ModelConfig

if TYPE_CHECKING:
    import torch
    from gguf import GGUFReader
    from torch import Tensor

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text", "olmo2": "olmo2"}
"""``general.architecture`` -> the family of ``huggingface.FAMILIES``; Mistral's files say ``llama``."""

_TENSORS = {
    r"token_embd\.weight": "embedding.weight",
    r"output_norm\.weight": "norm.weight",
    r"output\.weight": "head.weight",
    r"blk\.(\d+)\.attn_([qkv])\.(weight|bias)": r"layers.\1.attention.\2_proj.\3",
    r"blk\.(\d+)\.attn_output\.weight": r"layers.\1.attention.o_proj.weight",
    r"blk\.(\d+)\.attn_([qk])_norm\.weight": r"layers.\1.attention.\2_norm.weight",
    r"blk\.(\d+)\.attn_norm\.weight": r"layers.\1.attention_norm.weight",
    r"blk\.(\d+)\.post_attention_norm\.weight": r"layers.\1.attention_out_norm.weight",
    r"blk\.(\d+)\.ffn_norm\.weight": r"layers.\1.ffn_norm.weight",
    r"blk\.(\d+)\.post_ffw_norm\.weight": r"layers.\1.ffn_out_norm.weight",
    r"blk\.(\d+)\.ffn_(gate|up|down)\.weight": r"layers.\1.ffn.\2_proj.weight",
}
_LLAMA3 = {"rope_low_frequency": 1.0, "rope_high_frequency": 4.0, "rope_original_context": 8192}
"""Of all Llama 3.x releases; a file holds their effect only, as ``rope_freqs.weight``."""
_GLOBAL_EVERY = {"gemma3": 6, "olmo2": 4}
"""Architectures with local layers, and the interval of those that are not, where the file names none."""
_GEMMA_27B_LAYERS = 62
_VALUES_AT_ONCE = 2**22


@dataclass(frozen=True)
class GgufTensor(Stored):
    """A tensor of a GGUF file.

    Attributes:
        start, nbytes: where its data lies in the file.
        heads: heads whose rows llama.cpp has interleaved for its own RoPE, 0 where it has not.
    """

    start: int = 0
    nbytes: int = 0
    heads: int = 0

    def read(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        import torch
        from gguf import GGMLQuantizationType, dequantize

        kind = GGMLQuantizationType[self.dtype]
        rows = self.shape[0] if len(self.shape) > 1 else 1
        step = max(1, _VALUES_AT_ONCE * rows // max(1, int(np.prod(self.shape))))
        values = torch.empty((rows, *self.shape[-1:]), dtype=dtype)
        try:
            with self.file.open("rb") as file:
                file.seek(self.start)
                for row in range(0, rows, step):
                    count = min(step, rows - row)
                    data = np.fromfile(file, np.uint8, self.nbytes // rows * count)
                    part = dequantize(data.reshape(count, -1), kind)
                    values[row : row + count] = torch.from_numpy(part)
        except (OSError, ValueError, NotImplementedError) as error:
            raise UserError(
                f"{self.file}: cannot read the tensor '{self.name}' of type {self.dtype}: {error}"
            ) from error
        values = values.reshape(self.shape)
        if self.heads:  # pairs of neighbours -> first half against second half
            pairs = values.unflatten(0, (self.heads, -1, 2))
            values = pairs.transpose(1, 2).reshape(self.shape)
        return values.to(device)


def open_gguf(file: Path) -> Checkpoint:
    """Reads the metadata and the tensor headers of a GGUF file.

    Raises:
        UserError: the file is damaged or cut into several, or asks for something ``Decoder`` does not do.
    """
    reader = _open(file)
    fields = _Fields(reader, file)
    if fields.get("split.count", 1) not in (0, 1):
        raise UserError(
            f"{file} is one of {printable(str(fields.get('split.count')))} parts",
            "join them: llama-gguf-split --merge FIRST_PART WHOLE",
        )
    windows = fields.architecture in _GLOBAL_EVERY
    check_known(reader.fields, fields.get, fields.architecture, windows, file)
    headers = {tensor.name: tensor for tensor in reader.tensors}
    config = _config(fields, headers)
    tensors: dict[str, Stored] = {}
    for name, header in headers.items():
        if name == "rope_freqs.weight":
            continue
        ours = _decoder_name(name)
        if ours is None:
            raise UserError(f"{file}: unexpected tensor '{name}'")
        shape = tuple(int(size) for size in reversed(header.shape))
        heads = _interleaved_heads(fields, config, ours)
        start, nbytes = int(header.data_offset), int(header.n_bytes)
        tensors[ours] = GgufTensor(file, name, shape, header.tensor_type.name, start, nbytes, heads)
    tokenizer = read_tokenizer(fields.under("tokenizer."), fields.architecture, file)
    return Checkpoint(file, config, tokenizer, tensors)


def _open(file: Path) -> GGUFReader:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise UserError(f"{file}: GGUF files need the package gguf", "pip install gguf") from error

    check_file(file)
    with file.open("rb") as opened:
        if (begin := opened.read(4)) and begin != b"GGUF":
            raise UserError(f"{file} is not a GGUF file", "a GGUF file begins with the letters GGUF")

    class Reader(GGUFReader):
        """Cuts an array instead of a memory map: for a hundred thousand tokens that takes a third of the time."""

        @property
        def data(self) -> Any:
            return self._array

        @data.setter
        def data(self, mapped: Any) -> None:
            self._array = np.asarray(mapped)

    try:
        reader = Reader(file)
    except Exception as error:  # whatever a damaged file makes of the reader
        raise UserError(f"{file} is not a whole GGUF file: {error}", "get the file again") from error
    if reader.byte_order != "I":
        raise UserError(f"{file} is written for machines of the other byte order", "convert the model again")
    return reader


class _Fields:
    """The metadata of a GGUF file; names without a prefix are those of its architecture."""

    def __init__(self, reader: GGUFReader, file: Path) -> None:
        self.reader, self.file = reader, file
        self.architecture = str(self.get("general.architecture"))
        if self.architecture not in ARCHITECTURES:
            shown = printable(self.architecture)
            raise UserError(
                f"{file}: field 'general.architecture' is '{shown}', a family famcli does not read",
                f"it reads {', '.join(ARCHITECTURES)}",
            )

    def get(self, name: str, default: Any = None) -> Any:
        field = self.reader.get_field(name)
        if field is None:
            return default
        value = field.contents()
        # 32-bit decimals are what their shortest spelling says: 1e-05, not 9.999999747378752e-06.
        return float(str(np.float32(value))) if isinstance(value, float) else value

    def of(self, name: str, default: Any = None) -> Any:
        """A field of the architecture's own."""
        return self.get(f"{self.architecture}.{name}", default)

    def number(self, name: str, default: Any = None) -> Any:
        """As ``of``, for what must be there and be one number for all layers."""
        value = self.of(name, default)
        if isinstance(value, list) and value and all(one == value[0] for one in value):
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            what = (
                "lacks" if value is None else "has several values in" if isinstance(value, list) else "has no number in"
            )
            raise UserError(f"{self.file} {what} the field '{self.architecture}.{name}'")
        return value

    def count(self, name: str, default: Any = None) -> int:
        """As ``number``, for what must be a whole number of at least 1."""
        value = self.number(name, default)
        if not isinstance(value, int) or value < 1:
            raise UserError(
                f"{self.file}: field '{self.architecture}.{name}' must be a whole number of at least 1, not {value}"
            )
        return value

    def under(self, prefix: str) -> dict[str, Any]:
        return {name.removeprefix(prefix): self.get(name) for name in self.reader.fields if name.startswith(prefix)}


def _decoder_name(tensor: str) -> str | None:
    for pattern, name in _TENSORS.items():
        if match := re.fullmatch(pattern, tensor):
            return match.expand(name)
    return None


def _interleaved_heads(fields: _Fields, config: ModelConfig, name: str) -> int:
    if fields.architecture != "llama":
        return 0
    return config.heads if ".q_proj." in name else config.kv_heads if ".k_proj." in name else 0


def _config(fields: _Fields, headers: Mapping[str, Any]) -> ModelConfig:
    file = fields.file
    if "token_embd.weight" not in headers:
        raise UserError(f"{file} lacks the tensor 'token_embd.weight'")
    if fields.count("block_count") > len(headers):
        raise UserError(
            f"{file}: field '{fields.architecture}.block_count' is {fields.count('block_count')}, and the file holds "
            f"{len(headers)} tensors"
        )
    width, heads = fields.count("embedding_length"), fields.count("attention.head_count")
    rotated = fields.number("rope.dimension_count", 0)
    head_width = fields.count("attention.key_length", rotated or width // heads)
    for name in ("rope.dimension_count", "attention.value_length"):
        if fields.number(name, head_width) != head_width:
            raise UserError(
                f"{file}: field '{fields.architecture}.{name}' is {fields.number(name)} and not the width of heads, "
                f"{head_width}; famcli reads models where these are one"
            )
    gemma = fields.architecture == "gemma3"
    config = ModelConfig.from_mapping(
        {
            **huggingface.FAMILIES[ARCHITECTURES[fields.architecture]],
            "attention": "full",
            "vocab_size": int(headers["token_embd.weight"].shape[-1]),
            "width": width,
            "layers": fields.count("block_count"),
            "heads": heads,
            "kv_heads": fields.number("attention.head_count_kv", heads),
            "head_width": head_width,
            "ffn_width": fields.number("feed_forward_length"),
            "rope_theta": fields.number("rope.freq_base", 1e4),
            "norm_eps": fields.number("attention.layer_norm_rms_epsilon"),
            "tie_embeddings": "output.weight" not in headers,
            "trained_context": fields.of("context_length"),
            **_linear_scaling(fields),
            **(_windows(fields) if fields.architecture in _GLOBAL_EVERY else {}),
            **(_gemma(fields, width, heads, head_width) if gemma else {}),
        },
        str(file),
    )
    return (
        _llama3_scaling(config, headers["rope_freqs.weight"].data, file) if "rope_freqs.weight" in headers else config
    )


def _linear_scaling(fields: _Fields) -> dict[str, Any]:
    """A factor without a type is linear; a factor of 0 is none."""
    kind, factor = fields.of("rope.scaling.type", "linear"), fields.of("rope.scaling.factor")
    if factor is None:
        factor = fields.of("rope.scale_linear", 0.0)  # its old name
    if kind not in ("none", "linear"):
        shown = printable(str(kind))
        raise UserError(
            f"{fields.file}: field '{fields.architecture}.rope.scaling.type' is '{shown}'; famcli reads none or linear"
        )
    return {"rope_scaling": "linear", "rope_factor": factor} if kind == "linear" and factor not in (0, 1) else {}


def _llama3_scaling(config: ModelConfig, divisors: Any, file: Path) -> ModelConfig:
    """The scaling whose effect on each frequency the file holds, found again by trying."""
    import torch

    from famcli.models.attention import rope_frequencies

    divisors = torch.from_numpy(np.array(divisors, dtype=np.float64)).flatten()
    found = config.override({"rope_scaling": "llama3", "rope_factor": float(divisors.max()), **_LLAMA3}, str(file))
    plain = rope_frequencies(config, local=False)
    same = len(divisors) == len(plain) and torch.allclose(plain / divisors, rope_frequencies(found, False), rtol=1e-4)
    if config.rope_scaling != "none" or not same:
        raise UserError(f"{file}: the tensor 'rope_freqs.weight' scales RoPE otherwise than Llama 3 does")
    return found


def _gemma(fields: _Fields, width: int, heads: int, head_width: int) -> dict[str, Any]:
    """What is written in llama.cpp and not in its files: Gemma 3 of 27B scales its scores otherwise."""
    largest = fields.number("block_count") == _GEMMA_27B_LAYERS
    return {
        "embedding_scale": width**0.5,
        "attention_scale": (width / heads if largest else head_width) ** -0.5,
    }


def _windows(fields: _Fields) -> dict[str, Any]:
    """Local layers: the file has an interval of those that are not, or says of each layer whether it is local.

    They have a base of their own, and are not scaled; OLMo 2's have the base of all.
    """
    window, layers = fields.number("attention.sliding_window", 0), fields.count("block_count")
    pattern = fields.of("attention.sliding_window_pattern", _GLOBAL_EVERY[fields.architecture])
    if not isinstance(pattern, list):
        if isinstance(pattern, bool) or not isinstance(pattern, int) or pattern < 0:
            raise _wrong_pattern(fields, f"must be a whole number or a list, not {printable(str(pattern))}")
        pattern = [not pattern or (i + 1) % pattern != 0 for i in range(layers)]
    if len(pattern) != layers:
        raise _wrong_pattern(fields, f"is of {len(pattern)} layers, and the model has {layers}")
    base = 1e4 if fields.architecture == "gemma3" else fields.number("rope.freq_base", 1e4)
    theta = fields.number("rope.freq_base_swa", base)
    if fields.architecture != "gemma3" and theta != base:
        raise UserError(
            f"{fields.file}: field '{fields.architecture}.rope.freq_base_swa' is {theta} and "
            f"'{fields.architecture}.rope.freq_base' {base}; famcli reads models of this family with one base"
        )
    found = huggingface.local_layers(window, [bool(local) for local in pattern]) if window else {}
    return {**found, "rope_local_theta": theta} if found else {}


def _wrong_pattern(fields: _Fields, what: str) -> UserError:
    return UserError(f"{fields.file}: field '{fields.architecture}.attention.sliding_window_pattern' {what}")
