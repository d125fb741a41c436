"""Matrices whose rows are rounded to whole numbers of 8 bits, so that decoding reads half as many bytes.

A row is its scale times whole numbers. The rounded matrix is the model's, whatever is read: a few rows, as in decoding,
go to a kernel of PyTorch that reads the 8 bits as they lie. For more, the whole numbers become bfloat16, which holds
each of them exactly, and the product is scaled. The two ways differ by the rounding of their results alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from famcli.errors import UserError
from famcli.models.config import ModelConfig

LARGEST = 127
"""Of the whole numbers, either way."""
FEW_ROWS = 16
"""Most rows that the kernel takes: it takes as long for each, and more are sooner multiplied as bfloat16."""
_STRIDE = 32
"""A multiple of the values of a row that the kernel reads at once: it reads on beyond the end of rows that are none."""
_SCALE = "_scale"
"""After a weight's name: the scales of its rows."""


def linear(config: ModelConfig, inputs: int, outputs: int, bias: bool = False) -> nn.Linear:
    """A matrix of the network, of the kind that ``config.weights`` names."""
    return (Int8Linear if config.weights == "int8" else nn.Linear)(inputs, outputs, bias=bias)


def embedding(config: ModelConfig) -> nn.Embedding:
    """The token embeddings, of the kind that ``config.weights`` names."""
    return (Int8Embedding if config.weights == "int8" else nn.Embedding)(config.vocab_size, config.width)


class Int8Linear(nn.Linear):
    """``weight`` [out, in] int8 and ``weight_scale`` [out] in place of a matrix. They take no gradient."""

    weight_scale: Tensor

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__(inputs, outputs, bias)
        _make_room(self)

    def forward(self, x: Tensor) -> Tensor:
        product = _product(x, self.weight, self.weight_scale)
        return product if self.bias is None else product + self.bias


class Int8Embedding(nn.Embedding):
    """``weight`` [vocabulary, d] int8 and ``weight_scale`` [vocabulary]. They take no gradient."""

    weight_scale: Tensor

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__(vocab_size, width)
        _make_room(self)

    def forward(self, tokens: Tensor) -> Tensor:
        return restored(self.weight[tokens], self.weight_scale[tokens])


def pattern(embedding: nn.Embedding) -> Tensor:
    """Has the device and dtype of what the embeddings give."""
    return embedding.weight_scale if isinstance(embedding, Int8Embedding) else embedding.weight


def tied_logits(embedding: nn.Embedding, latents: Tensor) -> Tensor:
    """[..., d] -> [..., vocabulary], where the token embeddings are the output's matrix as well."""
    if isinstance(embedding, Int8Embedding):
        return _product(latents, embedding.weight, embedding.weight_scale)
    return F.linear(latents, embedding.weight)


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers [rows, n] int8 and their scales [rows] in bfloat16, of ``weight`` [rows, n] in float32.

    Whole numbers times scale are nowhere off by more than half the scale, which is the row's largest value over 127. It
    is rounded to bfloat16 before the values are, so that its own rounding adds nothing.
    """
    largest = torch.linalg.vector_norm(weight, float("inf"), dim=1)
    scale = (largest / LARGEST).clamp(min=torch.finfo(torch.bfloat16).tiny).to(torch.bfloat16)
    return (weight / scale.float()[:, None]).round_().to(torch.int8), scale


def restored(numbers: Tensor, scale: Tensor) -> Tensor:
    """Rows [..., n] as values again, in the dtype of ``scale`` [...]."""
    return numbers.to(scale.dtype) * scale[..., None]


def is_rounded(name: str, wanted: Collection[str]) -> bool:
    """Whether a decoder whose state has the names ``wanted`` keeps the weight ``name`` in 8 bits."""
    return name + _SCALE in wanted


def as_kept(name: str, weight: Tensor) -> dict[str, Tensor]:
    """What a decoder's state keeps of a weight [rows, n] in float32 that is to be rounded, by name."""
    numbers, scale = rounded(weight)
    return {name: numbers, name + _SCALE: scale}


def check_place(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Makes sure that weights of 8 bits, where ``config`` asks for them, can be multiplied.

    Raises:
        UserError: not on this device, not in this dtype, or not by this PyTorch.
    """
    if config.weights != "int8":
        return
    if device.type != "cpu":
        raise UserError(f"weights=int8 is for processors, and the device is {device.type}", "add --device cpu")
    if dtype != torch.bfloat16:
        spelled = str(dtype).removeprefix("torch.")
        raise UserError(f"weights=int8 computes in bfloat16, and the dtype is {spelled}", "add --dtype bfloat16")
    ones = torch.ones(1, _STRIDE, dtype=dtype)
    try:
        right = _kernel(ones, ones.to(torch.int8), ones[0, :1]).item() == _STRIDE
    except (AttributeError, RuntimeError):
        right = False
    if not right:
        raise UserError(
            f"weights=int8 needs a kernel that this PyTorch ({torch.__version__}) does not have for this processor",
            "leave weights=int8 out",
        )


def _make_room(module: Any) -> None:
    """For rounded rows, in place of a module's matrix."""
    rows = module.weight.shape[0]
    module.weight = nn.Parameter(torch.empty(module.weight.shape, dtype=torch.int8), requires_grad=False)
    module.register_buffer("weight_scale", torch.empty(rows))


def _product(x: Tensor, numbers: Tensor, scale: Tensor) -> Tensor:
    """``x`` [..., n] times rows of whole numbers [rows, n] with their ``scale`` [rows]: [..., rows]."""
    flat = x.reshape(-1, x.shape[-1])
    if len(flat) > FEW_ROWS or x.shape[-1] % _STRIDE:
        return F.linear(x, numbers.to(x.dtype)) * scale
    return _kernel(flat, numbers, scale).view(*x.shape[:-1], len(numbers))


def _kernel(x: Tensor, numbers: Tensor, scale: Tensor) -> Tensor:
    """PyTorch's own product with rows of 8 bits, which is no part of its public interface: [rows, n] -> [rows, out]."""
    found: Tensor = torch._weight_int8pack_mm(x, numbers, scale)
    return found
