"""Identifiers made here and not by the database, so that Postgres 15 to 18 behave alike."""

import os
import time
from uuid import UUID


def uuid7() -> UUID:
    """A version 7 UUID (RFC 9562): 48 bits of milliseconds, then randomness."""
    number = int.from_bytes(os.urandom(16), "big")
    number = (time.time_ns() // 1_000_000) << 80 | number & ((1 << 80) - 1)
    number = number & ~(0xF << 76) | 0x7 << 76
    return UUID(int=number & ~(0x3 << 62) | 0x2 << 62)
