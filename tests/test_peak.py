"""The memory of a run is its own: what the process took before it does not count."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from famcli.tasks.passkey import PassKey
from small_runs import RuleDecoder, loaded

from famcli.evaluation.runner import evaluate
from famcli.machine import peak
from famcli.machine.peak import PeakMemory, held_beside, largest_resident, program

MIB = 2**20
CPU = torch.device("cpu")


def take(mib: int) -> bytearray:
    """Memory whose every page was written to."""
    return bytearray(b"x") * (mib * MIB)


@pytest.fixture(params=["counted by the system", "sampled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "sampled":
        monkeypatch.setattr(peak, "_begin_anew", lambda: False)
    elif not peak._begin_anew():
        pytest.skip("this system does not count anew")
    yield request.param


def test_what_was_there_before_does_not_count(way: str) -> None:
    for before in (0, 400):
        passed = take(before)
        del passed
        with PeakMemory(CPU) as counted:
            first = counted.bytes
            here = take(100)
            time.sleep(3 * peak.SAMPLE_SECONDS)
            del here
            assert 95 * MIB <= counted.bytes - first <= 115 * MIB


def test_a_peak_beyond_all_before_is_exact(way: str) -> None:
    with PeakMemory(CPU) as counted:
        more = (largest_resident() - counted.bytes) // MIB + 300
        first = counted.bytes
        del [take(more)][0]  # shorter than any sample
        assert (more - 5) * MIB <= counted.bytes - first <= (more + 20) * MIB


def test_what_other_models_hold_is_told_from_the_program() -> None:
    program()
    before = held_beside()
    other = take(120)
    assert 115 * MIB <= held_beside() - before <= 125 * MIB
    with PeakMemory(CPU, beside=len(other)) as counted:
        assert counted.bytes == pytest.approx(largest_resident() - len(other), abs=MIB)


class Hungry(RuleDecoder):
    """Takes so much memory, for a moment, whenever it reads."""

    def __init__(self, mib: int) -> None:
        super().__init__(lambda text: 0)
        self.mib = mib
        self.description = self.identity = {"mib": mib}

    def prefill(self, tokens: torch.Tensor, state: Any) -> Any:
        take(self.mib)
        return super().prefill(tokens, state)


def test_runs_after_each_other_count_their_own_memory(tmp_path: Path) -> None:
    def peak_of(mib: int) -> float:
        task = PassKey.from_options({"lengths": "400", "trials": "2"})
        return evaluate(loaded(Hungry(mib)), task, results=tmp_path, fresh=True).cost["peak_memory_bytes"] / MIB

    alone = [peak_of(mib) for mib in (50, 350)]
    assert peak_of(50) == pytest.approx(alone[0], rel=0.03), "after the large one"
    assert peak_of(350) == pytest.approx(alone[1], rel=0.03)
    assert alone[1] - alone[0] == pytest.approx(300, abs=20)


def test_torch_is_the_programs_however_late_it_is_imported() -> None:
    code = (
        "from famcli.machine.peak import held_beside, importing_torch, program\n"
        "program()\n"
        "with importing_torch():\n"
        "    import torch\n"
        "late = held_beside()\n"
        "other = bytearray(b'x' * (50 << 20))\n"
        "with importing_torch():\n"
        "    more = bytearray(b'x' * (50 << 20))\n"
        "print(program() >> 20, late >> 20, held_beside() >> 20)"
    )
    begun, late, models = map(int, subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert late < 5
    assert begun < 60, "the process without PyTorch"
    assert 95 <= models <= 110
