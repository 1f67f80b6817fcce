"""Why a search does not find what stands: looked into at once, while it may still be seen."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import httpx

from storage import analyzer
from storage.packed_terms import ANALYZER, hashes_of
from tests.faults.people import Person, answer_of, how, ids_with_word
from tests.faults.stand import Stand

MOST_HITS = 100

# Whether what search reads of the memory is there, and holds the word.
STANDS = """
    SELECT m.deleted_at IS NOT NULL AS deleted, m.embedding_state, m.attempts,
           m.change_seq AS number, u.change_seq AS last_number,
           (SELECT count(*) FROM memory_layer.chunks
             WHERE user_id = m.user_id AND memory_id = m.id) AS vectors,
           CASE WHEN k.memory_id IS NULL THEN 'not packed'
                WHEN k.analyzer <> $2 THEN 'packed by another analyzer'
                WHEN k.content_hash <> m.content_hash THEN 'packed of another text'
                WHEN k.occurred_at <> m.occurred_at THEN 'packed of another time'
                WHEN position($3::bytea IN k.terms) % 4 <> 1 THEN 'packed without the word'
                ELSE 'packed with the word' END AS words
      FROM memory_layer.memories m
      JOIN memory_layer.user_state u USING (user_id)
      LEFT JOIN memory_layer.keywords k ON k.user_id = m.user_id AND k.memory_id = m.id
     WHERE m.id = $1
"""


async def why_not_found(
    stand: Stand, person: Person, memory_id: str, word: str, answer: httpx.Response, door: int
) -> str:
    """Say what stands in the database, where the memory is among the hits, and what other
    searches find: the same again, of more hits, at the other replica, later, with no cache."""
    told = [f"replica {door}: {place(answer, memory_id)}{how(answer)}"]
    told.append(f"in the database: {await stands(stand, memory_id, word)}")
    async for asked, again in ask_again(stand, person, word, door):
        told.append(f"{asked}: {place(again, memory_id)}{how(again)}")
    return "; ".join(told)


async def stands(stand: Stand, memory_id: str, word: str) -> str:
    terms = hashes_of(analyzer.terms(word))
    conn = await asyncpg.connect(stand.database_url)
    row = await conn.fetchrow(STANDS, UUID(memory_id), ANALYZER, terms[0].tobytes())
    await conn.close()
    return ", ".join(f"{key} {value}" for key, value in row.items()) if row else "no such memory"


def place(answer: httpx.Response, memory_id: str) -> str:
    """Say where the memory is among the hits, and which other hits hold the word."""
    for n, hit in enumerate(answer.json()["data"]["hits"], 1):
        if hit["memory"]["id"] == memory_id:
            return f"hit {n}, {hit['why']}, the word in {ids_with_word(answer)}"
        if memory_id in hit["duplicates"]:
            return f"with hit {n}, as its near-duplicate"
    return f"not there, the word in {ids_with_word(answer)}"


async def ask_again(
    stand: Stand, person: Person, word: str, door: int
) -> AsyncIterator[tuple[str, httpx.Response]]:
    body = {"query": word}
    yield "again", await answer_of(person, door, "POST /search", body=body)
    more = body | {"limit": MOST_HITS}
    yield "of more hits", await answer_of(person, door, "POST /search", body=more)
    yield "at the other", await answer_of(person, 1 - door, "POST /search", body=body)
    await asyncio.sleep(1)
    yield "a second later", await answer_of(person, door, "POST /search", body=body)
    stand.replicas[door].kill()
    await stand.replicas[door].restart()
    yield "with no cache", await answer_of(person, door, "POST /search", body=body)
