"""Looks through a person's words alone, for the few memories that hold a rare one of a query."""

from collections import Counter
from uuid import UUID

from storage.analyzer import WORD, terms_of_word
from storage.database import Connection
from storage.database_search import Slice, hits_of
from storage.packed_terms import ANALYZER, hashes_of

# What more memories of a slice hold than this is no rare word.
RARE = 100
# Of a text's stem and its words, the last letter may differ: "happi", "happy".
_SHORTEST_CUT = 4
MOST_NEEDLES = 20


async def holders(
    conn: Connection, user_id: UUID, query: str, terms: Counter[str], part: Slice
) -> list[UUID]:
    """Return the memories of the slice that hold a rare one of the query's terms.

    Takes about 5 µs a memory; where nobody has packed the words, texts are looked through as they
    stand, and some that are found hold another word that begins alike.
    """
    # In this order: what is packed between the two is found twice, and not by neither.
    found = await _in_texts(conn, user_id, _needles(query), part)
    found += [hits.ids for hits in await hits_of(conn, user_id, hashes_of(terms), part)]
    rare = {
        ids[n : n + 16] for ids in found if len(ids) <= 16 * RARE for n in range(0, len(ids), 16)
    }
    return [UUID(bytes=each) for each in sorted(rare)]


def _needles(query: str) -> list[str]:
    """What a text holds, in small letters, that holds one of the query's terms."""
    found = {
        stem if (stem := _cut(term)) in word.casefold() else word.casefold()
        for word in WORD.findall(query)
        for term in terms_of_word(word)
    }
    return sorted(found, key=len, reverse=True)[:MOST_NEEDLES]


def _cut(term: str) -> str:
    return term[:-1] if len(term) >= _SHORTEST_CUT else term


async def _in_texts(
    conn: Connection, user_id: UUID, needles: list[str], part: Slice
) -> list[bytes]:
    rows = await conn.fetch(
        """
        SELECT string_agg(uuid_send(t.id), '') AS ids
          FROM (SELECT id, lower(concat_ws(' ', prompt, response)) AS text
                  FROM memory_layer.memories m
                 WHERE user_id = $1 AND deleted_at IS NULL AND id BETWEEN $4 AND $5
                   AND NOT EXISTS (
                       SELECT FROM memory_layer.keywords
                        WHERE user_id = $1 AND memory_id = m.id AND content_hash = m.content_hash
                          AND occurred_at = m.occurred_at AND analyzer = $3)
                OFFSET 0) AS t
         CROSS JOIN unnest($2::text[]) AS needle
         WHERE position(needle IN t.text) > 0
         GROUP BY needle
        """,
        user_id,
        needles,
        ANALYZER,
        *part,
    )
    return [row["ids"] for row in rows]
