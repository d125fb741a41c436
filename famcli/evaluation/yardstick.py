"""What a run's cost is measured against: a matrix product, and the memory before the first token, on the same machine.

Times and bytes differ from machine to machine; their ratios to these differ less.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from famcli.machine.peak import largest_resident
from famcli.machine.rates import product_rates, scaled_ones

if TYPE_CHECKING:
    from famcli.checkpoints.sources import LoadedModel
    from famcli.evaluation.record import RunRecord

CPU_SIDE, ACCELERATOR_SIDE = 1024, 4096
"""Rows and columns of the matrices: the product takes some tens of milliseconds on one CPU core."""
PRODUCTS = 5
"""Products before a run, and as many after it: the median of all counts."""
LEAST_SECONDS = 1.0
"""Shorter runs have no throughput: they would time the clock and the first call of each kernel."""


class CostMeter:
    """Measures what runs in this process cost, on the model's device, in its dtype, with as many threads.

    Attributes:
        throughput: tokens/s of each run to GFLOP/s of a matrix product, by run id; short runs have none.
    """

    def __init__(self, model: LoadedModel) -> None:
        """Begins: ``model`` is loaded, and has read nothing yet."""
        self.model = model
        self.threads = torch.get_num_threads()
        self.throughput: dict[str, float] = {}
        self._products()  # the first call of a kernel loads it
        self._rest = self._memory()
        self._runs: list[RunRecord] = []

    def measure(self, run: Callable[[], RunRecord]) -> RunRecord:
        """Runs ``run``, which must begin in this process, between two rounds of matrix products."""
        before = self._products()
        record = run()
        rate = statistics.median([*before, *self._products()])
        self._runs.append(record)
        if record.cost["seconds"] >= LEAST_SECONDS:
            self.throughput[record.run_id] = record.cost["tokens_per_second"] / rate
        return record

    @property
    def memory(self) -> float | None:
        """Peak memory to that before the first token: of tensors on CUDA, else the largest resident set until then."""
        if not self._runs:
            return None
        peak = max(record.cost["peak_memory_bytes"] for record in self._runs)
        return max(peak, self._rest) / self._rest

    def _memory(self) -> int:
        if self.model.device.type == "cuda":
            return torch.cuda.memory_allocated(self.model.device)
        return largest_resident() - self.model.beside

    def _products(self) -> list[float]:
        """GFLOP/s of some matrix products."""
        device = self.model.device
        side = CPU_SIDE if device.type == "cpu" else ACCELERATOR_SIDE
        matrix = scaled_ones(side, side, device, self.model.dtype)
        return [rate / 1e9 for rate in product_rates(matrix, matrix, PRODUCTS)]
