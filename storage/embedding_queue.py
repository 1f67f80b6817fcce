"""The queue of texts to embed: the memories whose `embedding_state` is open."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from storage import keyword_store
from storage.database import Connection, Pool, acting_as_worker
from storage.keyword_store import Texts
from storage.memory_store import take_numbers
from storage.packed_terms import Packed

# Serves this many users a turn and as many memories of each, so that an import of thousands
# does not keep another person's new memory waiting.
USERS_A_TURN = 32
MEMORIES_A_USER = 2
# Longer than an embedder may take over what is leased, its retries included.
LEASE_SECONDS = 300
# A memory that was leased so often and never finished takes the process down with it.
MOST_ATTEMPTS = 5
MOST_COUNTED = 100_000

_WAITING = """embedding_state = 'open' AND deleted_at IS NULL
           AND (leased_until IS NULL OR leased_until < now())"""


@dataclass(frozen=True, slots=True)
class Leased(Texts):
    user_id: UUID


@dataclass(frozen=True, slots=True)
class EmbeddedChunk:
    role: str
    start: int
    stop: int
    vector: np.ndarray


@dataclass(frozen=True, slots=True)
class Embedded:
    leased: Leased
    chunks: Sequence[EmbeddedChunk]
    packed: Packed

    @property
    def key(self) -> tuple[UUID, UUID]:
        return self.leased.user_id, self.leased.id


@dataclass(frozen=True, slots=True)
class Backlog:
    waiting: int
    failed: int


async def lease(pool: Pool, after: UUID) -> list[Leased]:
    """Take the next users' memories behind user `after` for LEASE_SECONDS; commits at once.

    What was tried before and never finished comes when nothing else waits, and alone: if it takes
    the process down, it takes no other memory's tries with it.
    """
    async with acting_as_worker(pool) as conn:
        untried = await _lease(conn, after, "attempts = 0", USERS_A_TURN, MEMORIES_A_USER)
        return untried or await _lease(conn, after, f"attempts < {MOST_ATTEMPTS}", 1, 1)


async def _lease(
    conn: Connection, after: UUID, tried: str, users: int, memories: int
) -> list[Leased]:
    waiting = f"{_WAITING} AND {tried}"
    rows = await conn.fetch(
        f"""
        WITH RECURSIVE users AS (
            (SELECT user_id, 1 AS n FROM memory_layer.memories
              WHERE user_id > $1 AND {waiting} ORDER BY user_id LIMIT 1)
            UNION ALL
            SELECT next.user_id, users.n + 1 FROM users, LATERAL (
                SELECT user_id FROM memory_layer.memories
                 WHERE user_id > users.user_id AND {waiting} ORDER BY user_id LIMIT 1) next
             WHERE users.n < {users}
        ), picked AS (
            SELECT p.user_id, p.id FROM users, LATERAL (
                SELECT user_id, id FROM memory_layer.memories m
                 WHERE m.user_id = users.user_id AND {waiting}
                 ORDER BY change_seq DESC LIMIT {memories}
                   FOR UPDATE SKIP LOCKED) p
        )
        UPDATE memory_layer.memories m
           SET leased_until = now() + interval '{LEASE_SECONDS} s', attempts = attempts + 1
          FROM picked WHERE m.user_id = picked.user_id AND m.id = picked.id
        RETURNING m.user_id, m.id, m.prompt, m.response, m.content_hash, m.occurred_at
        """,  # nosec B608 # made of the constants above
        after,
    )
    return [Leased(**row) for row in rows]


async def give_up_on_deadly(pool: Pool) -> None:
    """Set aside what was leased MOST_ATTEMPTS times and never finished."""
    async with acting_as_worker(pool) as conn:
        await conn.execute(
            f"""
            UPDATE memory_layer.memories m
               SET embedding_state = 'failed', leased_until = NULL
              FROM (SELECT user_id, id FROM memory_layer.memories
                     WHERE {_WAITING} AND attempts >= {MOST_ATTEMPTS}
                       FOR UPDATE SKIP LOCKED) deadly
             WHERE m.user_id = deadly.user_id AND m.id = deadly.id
            """  # nosec B608 # made of the constants above
        )


def is_all(leased: Sequence[Leased]) -> bool:
    """Say whether a turn could have taken more, had there been more."""
    each = Counter(item.user_id for item in leased)
    return len(each) < USERS_A_TURN and max(each.values()) < MEMORIES_A_USER


async def finish(pool: Pool, model: str, embedded: Sequence[Embedded]) -> int:
    """Store vectors and words of the memories that still hold these texts; return how many."""
    async with acting_as_worker(pool) as conn:
        numbers = await take_numbers(conn, Counter(item.leased.user_id for item in embedded))
        left = []
        for item in embedded:
            if (number := numbers.get(item.leased.user_id)) is not None:
                numbers[item.leased.user_id] -= 1
                left.append((item, number))
        done = await _mark_done(conn, model, left)
        kept = [item for item in embedded if item.key in done]
        if kept:
            await _replace_chunks(conn, model, kept)
            owners = [item.leased.user_id for item in kept]
            words = [(item.leased, item.packed) for item in kept]
            await keyword_store.write(conn, owners, words)
    return len(kept)


async def _mark_done(
    conn: Connection, model: str, numbered: Sequence[tuple[Embedded, int]]
) -> set[tuple[UUID, UUID]]:
    """Return the keys of those that still hold the text that was leased."""
    rows = await conn.fetch(
        """
        UPDATE memory_layer.memories m
           SET embedding_state = 'done', embedding_model = $1, leased_until = NULL,
               attempts = 0, change_seq = k.number
          FROM unnest($2::uuid[], $3::uuid[], $4::bytea[], $5::bigint[])
            AS k (user_id, id, content_hash, number)
         WHERE m.user_id = k.user_id AND m.id = k.id AND m.content_hash = k.content_hash
           AND m.deleted_at IS NULL
        RETURNING m.user_id, m.id
        """,
        model,
        [item.leased.user_id for item, _ in numbered],
        [item.leased.id for item, _ in numbered],
        [item.leased.content_hash for item, _ in numbered],
        [number for _, number in numbered],
    )
    return {(row["user_id"], row["id"]) for row in rows}


async def _replace_chunks(conn: Connection, model: str, embedded: Sequence[Embedded]) -> None:
    await conn.execute(
        """
        DELETE FROM memory_layer.chunks c USING unnest($1::uuid[], $2::uuid[])
            AS k (user_id, id) WHERE c.user_id = k.user_id AND c.memory_id = k.id
        """,
        [item.leased.user_id for item in embedded],
        [item.leased.id for item in embedded],
    )
    await conn.executemany(
        """
        INSERT INTO memory_layer.chunks
               (user_id, memory_id, embedding_model, ordinal, role, start, stop, embedding)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        [
            (*item.key, model, n, chunk.role, chunk.start, chunk.stop, chunk.vector)
            for item in embedded
            for n, chunk in enumerate(item.chunks)
        ],
    )


async def give_back(pool: Pool, leased: Sequence[Leased], seconds: float) -> None:
    """The embedder is away, which is not the texts' fault: let them wait, and forget the try."""
    await _release(
        pool,
        leased,
        f"leased_until = now() + interval '{float(seconds)} s', attempts = attempts - 1",
    )


async def set_aside(pool: Pool, leased: Leased) -> None:
    """This very text cannot be embedded; keywords go on finding it."""
    await _release(pool, [leased], "embedding_state = 'failed', leased_until = NULL")


async def _release(pool: Pool, leased: Sequence[Leased], assignment: str) -> None:
    async with acting_as_worker(pool) as conn:
        await conn.execute(
            f"""
            UPDATE memory_layer.memories m SET {assignment}
              FROM (SELECT m.user_id, m.id FROM memory_layer.memories m
                      JOIN unnest($1::uuid[], $2::uuid[], $3::bytea[])
                        AS k (user_id, id, content_hash) USING (user_id, id, content_hash)
                     WHERE m.embedding_state = 'open'
                       FOR UPDATE OF m SKIP LOCKED) mine
             WHERE m.user_id = mine.user_id AND m.id = mine.id
            """,  # nosec B608 # both assignments stand above
            [item.user_id for item in leased],
            [item.id for item in leased],
            [item.content_hash for item in leased],
        )


async def reopen_other_models(pool: Pool, model: str, limit: int = 500) -> int:
    """Queue memories whose vectors another embedder made; return how many."""
    async with acting_as_worker(pool) as conn:
        done = await conn.execute(
            """
            UPDATE memory_layer.memories m SET embedding_state = 'open', attempts = 0
              FROM (SELECT user_id, id FROM memory_layer.memories
                     WHERE embedding_state = 'done' AND deleted_at IS NULL
                       AND (embedding_model < $1 OR embedding_model > $1)
                     LIMIT $2 FOR UPDATE SKIP LOCKED) old
             WHERE m.user_id = old.user_id AND m.id = old.id
            """,
            model,
            limit,
        )
    return int(done.removeprefix("UPDATE "))


async def backlog(pool: Pool) -> Backlog:
    """Count up to MOST_COUNTED: further, a count would take longer than anybody should wait."""
    async with acting_as_worker(pool) as conn:
        row = await conn.fetchrow(
            """
            SELECT (SELECT count(*) FROM (
                        SELECT FROM memory_layer.memories
                         WHERE embedding_state = 'open' AND deleted_at IS NULL LIMIT $1) AS w
                   ) AS waiting,
                   (SELECT count(*) FROM (
                        SELECT FROM memory_layer.memories
                         WHERE embedding_state = 'failed' AND deleted_at IS NULL LIMIT $1) AS f
                   ) AS failed
            """,
            MOST_COUNTED,
        )
    return Backlog(row["waiting"], row["failed"]) if row else Backlog(0, 0)
