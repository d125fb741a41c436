"""What the C library does with memory that PyTorch frees on a processor."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT, _LARGE = (1 << 31) - 1, 1 << 25


def keep_freed_memory() -> bool:
    """Lets glibc reuse what is freed, where it else gives every large tensor back and clears new pages for the next.

    A step of training frees and takes the same sizes again and again, and the clearing takes up to a third of its time.
    The process holds on to up to 2 GiB more than it uses. Tensors above 32 MiB, the most that glibc allows, are given
    back as ever.

    Returns:
        Whether the C library is one that can be told so.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    told = ctypes.CDLL(None).mallopt
    return bool(told(_M_MMAP_THRESHOLD, _LARGE)) and bool(told(_M_TRIM_THRESHOLD, _KEPT))
