"""Whether this machine may have a GPU, as far as can be told without PyTorch, which takes a second to import."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

CUDA_DRIVER = "libcuda.so.1"
"""What PyTorch itself loads; there is no CUDA without it."""
ROCM_DEVICE = Path("/dev/kfd")


def may_have_gpu() -> bool:
    """False where PyTorch can find none; a process that has imported PyTorch already is to ask it."""
    if "torch" in sys.modules or sys.platform != "linux" or ROCM_DEVICE.exists():
        return True
    try:
        ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return False
    return True
