"""Memory and line protocol shared by the Python baselines; warm_region.h is the same in C++."""

from __future__ import annotations

import mmap
import sys
import time
from collections.abc import Callable, Iterator

CHUNK_BYTES = 2 << 20


def make_warm_region(size: int) -> mmap.mmap:
    """Touched memory, with huge pages if the system provides them."""
    region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        region.madvise(mmap.MADV_HUGEPAGE)
    block = b"\x5a" * CHUNK_BYTES
    for offset, run in runs(size, CHUNK_BYTES):
        region[offset : offset + run] = block[:run]
    return region


def runs(total: int, run_bytes: int) -> Iterator[tuple[int, int]]:
    """Offset and size of each run of at most run_bytes."""
    for offset in range(0, total, run_bytes):
        yield offset, min(run_bytes, total - offset)


def say(line: str) -> None:
    print(line, flush=True)


def time_transfers(transfer: Callable[[], None]) -> None:
    """Runs one transfer for each line of stdin, and prints its seconds."""
    say("ready")
    for _ in sys.stdin:
        begin = time.perf_counter()
        transfer()
        say(f"{time.perf_counter() - begin:.6f}")
