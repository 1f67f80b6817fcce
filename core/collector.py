"""What the garbage collector of a long process need not look at."""

import gc


def spare_the_collector() -> None:
    """Start-up's objects live as long as the process: spare every collection the walk."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1_000)
