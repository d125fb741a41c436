"""How much memory is free: the least that system and control groups say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from famcli.machine import free
from famcli.machine.free import free_bytes, is_out_of_memory

CPU = torch.device("cpu")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the files of a system with 1000 KiB available, in which this process is in the group ``a/b``."""
    for name, path in (("MEMINFO", "meminfo"), ("GROUPS", "groups"), ("OWN_GROUP", "own")):
        monkeypatch.setattr(free, name, tmp_path / path)
    (tmp_path / "meminfo").write_text("MemTotal: 4000 kB\nMemFree: 10 kB\nMemAvailable:    1000 kB\n")
    (tmp_path / "own").write_text("1:name=systemd:/x\n0::/a/b\n")
    (tmp_path / "groups" / "a" / "b").mkdir(parents=True)
    return tmp_path


def group(folder: Path, most: str, used: str, files: str = "0") -> None:
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {files}\n")


def test_what_the_system_says_holds_without_limits(system: Path) -> None:
    assert free_bytes(CPU) == 1000 * 1024
    group(system / "groups" / "a" / "b", "max", "5000")
    assert free_bytes(CPU) == 1000 * 1024


@pytest.mark.parametrize("place", ["groups/a/b", "groups/a", "groups"])
def test_a_limit_of_any_group_above_holds(system: Path, place: str) -> None:
    group(system / place, "90000", "50000", "7000")
    assert free_bytes(CPU) == 47_000, "what only copies files is given up"


def test_a_group_that_is_full_leaves_nothing(system: Path) -> None:
    group(system / "groups" / "a", "90000", "95000")
    assert free_bytes(CPU) == 0


def test_the_older_version_of_groups_is_asked_too(system: Path) -> None:
    folder = system / "groups" / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text("90000\n")
    (folder / "memory.usage_in_bytes").write_text("50000\n")
    assert free_bytes(CPU) == 40_000


def test_a_system_that_does_not_say_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEMINFO", "GROUPS", "OWN_GROUP"):
        monkeypatch.setattr(free, name, tmp_path / "nothing")
    assert free_bytes(CPU) is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_that_say_there_is_too_little(error: Exception, told: bool) -> None:
    assert is_out_of_memory(error) == told
