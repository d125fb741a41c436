"""How fast this machine multiplies matrices and moves bytes: what a model's own speed is measured against."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor


def scaled_ones(rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A matrix whose product with another of its kind stays near one: [rows, columns]."""
    return torch.ones(rows, columns, device=device, dtype=dtype) / math.sqrt(columns)


def product_rates(
    left: Tensor, right: Tensor, count: int, times: int = 1, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Operations in a second of ``left @ right``, a multiplication and an addition counting two.

    Args:
        left, right: [m, k] and [k, n].
        count: rates to measure.
        times: products in each of them.
        clock: whose seconds they are.
    """
    work = 2 * left.shape[0] * left.shape[1] * right.shape[1] * times
    rates = []
    for _ in range(count):
        begun = clock()
        for _ in range(times):
            made = left @ right
        made[0, 0].item()  # asking for a number waits for the device
        rates.append(work / (clock() - begun))
    return rates


def copy_rates(size: int, device: torch.device, count: int) -> list[float]:
    """Bytes in a second of copying ``size`` bytes from place to place in memory, read and written ones."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)  # pages that were never written to would be the system's work
    rates = []
    for _ in range(count):
        begun = time.perf_counter()
        target.copy_(source)
        target[-1].item()
        rates.append(2 * size / (time.perf_counter() - begun))
    return rates
