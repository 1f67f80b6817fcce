"""pgvector's wire format: two int16 (dimension, 0), then big-endian float32."""

import struct

import asyncpg
import numpy as np

HEAD = struct.Struct(">HH")


def vectors_from(wire: bytes, count: int) -> np.ndarray:
    """Decode so many vectors of one size, which follow each other; shape (count, dimensions)."""
    numbers = np.frombuffer(wire, np.uint8).reshape(count, -1)[:, HEAD.size :]
    return numbers.view(">f4").astype(np.float32)


def wire_of(vector: np.ndarray) -> bytes:
    return HEAD.pack(len(vector), 0) + vector.astype(">f4").tobytes()


async def take_vectors(conn: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Let a connection take arrays for parameters of type `vector`: to encode a list of floats
    costs a hundred times as much."""
    # Supabase keeps the extension in `extensions`, others in `public`; before the first migration
    # there is none.
    schema = await conn.fetchval(
        "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'"
    )
    if schema:
        await conn.set_type_codec(
            "vector",
            schema=schema,
            format="binary",
            encoder=wire_of,
            decoder=lambda wire: vectors_from(wire, 1)[0],
        )
