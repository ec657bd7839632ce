"""glibc returns large freed blocks to the system and faults every page in again at the next step; here it keeps them.

Costs nothing but memory that stays with the process. Worth 10 to 40 % of a step on a CPU (`benchmarks/dynamics.py` sets the
same for everyone it times); other C libraries and systems are left as they are.
"""

from __future__ import annotations

import ctypes
import platform
import sys

# malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Whether the allocator took the settings; False where it is not glibc's."""
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    set_option = ctypes.CDLL(None).mallopt
    wanted = ((MMAP_THRESHOLD, 2**30), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 2**28))
    return all([set_option(option, value) == 1 for option, value in wanted])
