"""How a worker's process is set up before its event loop exists: loop, threads, garbage collector, allocator."""

import asyncio
import ctypes
import functools
import gc
import os
import platform
import sys

import uvloop

#: container objects made since the last collection before the next one
_GC_YOUNG_MAX = 50_000
_SWITCH_INTERVAL_S = 0.0005
_ARENAS_MAX = 2
_M_ARENA_MAX = -8  # of glibc's malloc.h


def tune() -> None:
    """Choose the faster loop, and have memory and threads used as a worker needs it. What the user chose stays."""
    if type(asyncio.get_event_loop_policy()) is asyncio.DefaultEventLoopPolicy:
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    # frames here are small: threads of their own would only take the cores from the loop and the broker; polars reads
    # this when it is first used
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    # how long another thread may keep the interpreter while the event loop wants it: the consumer's thread parses, and
    # Python's 5 ms would be what a reader waits for it
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # queued records are many, long-lived and free of cycles: with Python's thresholds the collector would walk over
    # them again and again, which costs a quarter of the throughput. What is there now are modules: to look for garbage
    # among them would take longer than it is worth
    gc.freeze()
    gc.set_threshold(_GC_YOUNG_MAX, 20, 50)
    _limit_arenas()


def _limit_arenas() -> None:
    """Keep what the store's, the clients' and our own threads have freed in few places, where others can use it.

    glibc gives every thread an arena of its own, up to eight per core. With 300,000 windows a fifth of the resident memory
    was freed memory in arenas whose threads did not want it.
    """
    if _has_glibc() and "MALLOC_ARENA_MAX" not in os.environ:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS_MAX)


def release_freed_memory() -> None:
    """Give back to the system what glibc keeps of freed memory; may run in a thread. With another libc it does nothing."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
