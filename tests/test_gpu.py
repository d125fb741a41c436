"""Whether PyTorch need be asked for a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from famcli.machine import gpu


@pytest.fixture(autouse=True)
def _without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine of Linux without a driver, and PyTorch not imported."""
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(gpu, "CUDA_DRIVER", "libnone.so.1")
    monkeypatch.setattr(gpu, "ROCM_DEVICE", tmp_path / "kfd")


def test_there_is_none_without_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not gpu.may_have_gpu()
    (tmp_path / "kfd").touch()
    assert gpu.may_have_gpu()
    (tmp_path / "kfd").unlink()
    monkeypatch.setattr(gpu, "CUDA_DRIVER", "libc.so.6")  # any library that is there
    assert gpu.may_have_gpu()


def test_where_torch_knows_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", object())
    assert gpu.may_have_gpu()
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert gpu.may_have_gpu()


def test_it_says_no_only_where_torch_says_so() -> None:
    code = (
        "from famcli.machine.gpu import may_have_gpu; may = may_have_gpu(); import torch\n"
        "print(may or not torch.cuda.is_available())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True\n"
