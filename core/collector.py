"""The memory of a long process: what its collector need not look at, and what it gives back."""

import asyncio
import ctypes
import gc


def spare_the_collector() -> None:
    """Start-up's objects live as long as the process: spare every collection the walk."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1_000)


async def trim_memory() -> str:
    """Return pages that hold nothing any more. The C library of Linux keeps them where what is
    loaded and dropped is of ever other sizes, as caches are, and the process grows on."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    gave = await asyncio.to_thread(trim, 0) if trim else 0
    return "some" if gave else "none"
