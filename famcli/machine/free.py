"""How much memory is free, as far as the system says, and whether an error says that there was too little."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MEMINFO = Path("/proc/meminfo")
GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What PyTorch says on its devices."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python or PyTorch says with ``error`` that there is not enough memory."""
    told = isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    return told or isinstance(error, MemoryError)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that a model on ``device`` could still take; ``None`` where the system does not say."""
    if device.type == "cuda":
        import torch

        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    found = [*_of_system(), *_of_groups()] if device.type == "cpu" else []
    return max(0, min(found)) if found else None


def _of_system() -> Iterator[int]:
    for line in _text(MEMINFO).splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _of_groups() -> Iterator[int]:
    """What control groups, those of containers among them, leave: version 2 group by group, version 1 the own one."""
    own = next((line[3:] for line in _text(OWN_GROUP).splitlines() if line.startswith("0::")), "/").strip("/")
    folder = GROUPS / own
    for group in (folder, *folder.parents):
        if not group.is_relative_to(GROUPS):
            break
        yield from _left(group / "memory.max", group / "memory.current", group / "memory.stat")
    old = GROUPS / "memory"
    yield from _left(old / "memory.limit_in_bytes", old / "memory.usage_in_bytes", old / "memory.stat")


def _left(limit: Path, used: Path, statistics: Path) -> Iterator[int]:
    """Bytes; copies of files that nobody writes to are given up when memory is wanted."""
    most, taken = _text(limit).strip(), _text(used).strip()
    if most.isdigit() and taken.isdigit():
        lines = (line.split() for line in _text(statistics).splitlines())
        yield int(most) - int(taken) + next((int(line[1]) for line in lines if line[:1] == ["inactive_file"]), 0)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
