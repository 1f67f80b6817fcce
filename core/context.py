"""Which memories go into a prompt, and how much of each."""

from collections.abc import Sequence
from uuid import UUID

from core.hits import Hit
from core.injection import BYTES_PER_TOKEN, FRAME_BYTES, Source
from core.retrieval import Retrieval
from storage.memory_store import Filters

MOST_SOURCES = 8
QUERY_CHARACTERS = 4_000
# So many turns before the last one say what "it" is.
EARLIER_TURNS = 2
LEAST_EXCERPT = 40  # characters; less says nothing
MOST_TITLE = 120
EVERYTHING = Filters()


async def recall_for_turns(
    retrieval: Retrieval, user_id: UUID, turns: Sequence[str], budget: int
) -> list[Source]:
    """Recall for the last of a person's turns, and for it in the light of those before."""
    queries = [_query(turns[-1:])] if turns else []
    if len(turns) > 1:
        queries.append(_query(turns[-1 - EARLIER_TURNS :]))
    said = {turn.strip() for turn in turns}
    hits: dict[UUID, Hit] = {}
    for query in queries:
        found = await retrieval.recall(user_id, query, MOST_SOURCES, EVERYTHING)
        for hit in found.hits:
            if hit.relevant and (hit.memory.prompt or "").strip() not in said:
                hits.setdefault(hit.memory.id, hit)
    return make_sources(list(hits.values())[:MOST_SOURCES], budget)


def _query(turns: Sequence[str]) -> str:
    """The newest turn last; of a long one its beginning and its end."""
    text = "\n".join(turns)
    half = QUERY_CHARACTERS // 2
    return text if len(text) <= QUERY_CHARACTERS else f"{text[:half]}\n{text[-half:]}"


def make_sources(hits: Sequence[Hit], budget: int) -> list[Source]:
    """Number the hits, each cut to its share of what is left of `budget` tokens."""
    room = budget * BYTES_PER_TOKEN - FRAME_BYTES
    sources: list[Source] = []
    for waiting, hit in zip(range(len(hits), 0, -1), hits, strict=True):
        source = _excerpt(hit, len(sources) + 1, room // waiting)
        if source:
            sources.append(source)
            room -= _bytes_of(source)
    return sources


def _bytes_of(source: Source) -> int:
    return len(source.line.encode()) + 1


def _excerpt(hit: Hit, n: int, most: int) -> Source | None:
    """Cut a memory until its line has at most `most` bytes; None where too little would be left."""
    characters = most
    while characters >= LEAST_EXCERPT:
        source = _cut(hit, n, characters)
        size = _bytes_of(source)
        if size <= most:
            return source
        characters = int(characters * most / size * 0.9)
    return None


def _cut(hit: Hit, n: int, characters: int) -> Source:
    """Keep what matched; the other side gets what that one leaves, and a third at least."""
    memory = hit.memory
    texts = {"prompt": memory.prompt or "", "response": memory.response or ""}
    other = "response" if hit.matched == "prompt" else "prompt"
    share = characters - min(len(texts[other]), characters // 3)
    lengths = {hit.matched: share, other: characters - min(len(texts[hit.matched]), share)}
    begins = {hit.matched: _place(texts[hit.matched], hit), other: 0}
    cut = {side: _window(text, begins[side], lengths[side]) for side, text in texts.items()}
    return Source(
        n,
        memory.id,
        memory.provider,
        memory.occurred_at,
        memory.conversation_id,
        (memory.conversation_title or "")[:MOST_TITLE] or None,
        cut["prompt"],
        cut["response"],
    )


def _place(text: str, hit: Hit) -> int:
    return max(text.find("".join(segment.text for segment in hit.snippet)), 0)


def _window(text: str, place: int, length: int) -> str:
    """Cut `length` characters that hold what stands at `place`, with a mark at each cut."""
    if len(text) <= length:
        return text
    begin = max(0, min(place - length // 4, len(text) - length))
    end = begin + length
    return ("…" if begin else "") + text[begin:end] + ("…" if end < len(text) else "")
