"""What a person was told, compared with what is read, found, listed and synchronised."""

import asyncio
from collections import Counter

import asyncpg

from tests.faults.people import Expected, Person, answer_of, how, ids_with_word
from tests.faults.stand import Stand
from tests.faults.why import why_not_found

Texts = tuple[str | None, str | None]
AT_ONCE = 4
# Of each person: to explain one takes seconds, and a replica.
MOST_EXPLAINED = 3
PATIENCE = 60


async def check_everything(
    stand: Stand, crowd: list[Person], most_searches: int
) -> tuple[list[str], list[str], list[str]]:
    """Return what was lost, what is there that must not be, and what no search finds."""
    lost: list[str] = []
    doubled: list[str] = []
    stale: list[str] = []
    rows = 0
    for person in crowd:
        standing = await read_all(person)
        rows += len(standing)
        missing, too_much = compare(person, standing)
        lost += missing
        doubled += too_much
        lost += await differences(person, standing, "that followed the changes")
        person.copy, person.cursor = {}, None
        lost += await differences(person, standing, "made anew")
        some = list(standing.items())[: most_searches // len(crowd)]
        stale += await search_all(stand, person, some)
    conn = await asyncpg.connect(stand.database_url)
    stored = await conn.fetchval(
        "SELECT count(*) FROM memory_layer.memories WHERE deleted_at IS NULL"
    )
    if numbers := await conn.fetch(AMISS):
        lost.append(f"numbers of changes that come twice, or beyond the last: {numbers[:5]}")
    await conn.close()
    if stored != rows:
        doubled.append(f"{stored} memories are stored and {rows} can be read")
    return lost, doubled, stale


# A change without a number of its own is one that a reader of pages can miss.
AMISS = """
    SELECT user_id, m.change_seq, count(*) FROM memory_layer.memories m
      JOIN memory_layer.user_state u USING (user_id)
     GROUP BY user_id, m.change_seq, u.change_seq
    HAVING count(*) > 1 OR m.change_seq > u.change_seq
"""


async def differences(person: Person, standing: dict[str, Texts], which: str) -> list[str]:
    """Follow the changes to their end, and compare the copy with what is read."""
    async with asyncio.timeout(PATIENCE):
        while not await person.synchronise():  # noqa: ASYNC110 - sessions may be renewed between
            await asyncio.sleep(0.1)
    found = f"person {person.number}, the copy {which}"
    return [
        f"{found}: {memory_id} is {person.copy.get(memory_id)}, not {standing.get(memory_id)}"
        for memory_id in person.copy.keys() | standing.keys()
        if person.copy.get(memory_id) != standing.get(memory_id)
    ]


async def read_all(person: Person) -> dict[str, Texts]:
    """Read page by page, at both replicas in turn; an id that comes twice is kept as a third."""
    found: dict[str, Texts] = {}
    query: dict[str, object] = {"limit": 100}
    for page_number in range(1_000_000):
        answer = await answer_of(person, page_number % 2, "GET /memories", query=query)
        page = answer.json()["data"]
        for memory in page["memories"]:
            key = memory["id"] + (" again" if memory["id"] in found else "")
            found[key] = memory["prompt"], memory["response"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]
    raise AssertionError("the list has no end")


def compare(person: Person, standing: dict[str, Texts]) -> tuple[list[str], list[str]]:
    lost, doubled = [], []
    for memory_id, expected in person.memories.items():
        seen = standing.get(memory_id)
        if expected.deleted:
            if seen:
                doubled.append(f"deleted, and there: {memory_id} {seen}")
        elif not seen or not _is_as_told(expected, seen):
            lost.append(f"{memory_id}: {seen} instead of {expected}")
    for memory_id, (prompt, _) in standing.items():
        if memory_id not in person.memories and prompt not in person.chats_perhaps:
            doubled.append(f"nobody was told of {memory_id} {prompt!r}")
    prompts = Counter(prompt for prompt, _ in standing.values())
    doubled += [f"{count} times: {prompt!r}" for prompt, count in prompts.items() if count > 1]
    everything = "".join(f"{prompt}{response}" for prompt, response in standing.values())
    doubled += [text for text in person.refused_texts if text in everything]
    return lost, doubled


def _is_as_told(expected: Expected, seen: Texts) -> bool:
    return seen[0] == expected.prompt and expected.response in (None, seen[1])


async def search_all(stand: Stand, person: Person, waiting: list[tuple[str, Texts]]) -> list[str]:
    """Search for each memory by its own word, at one replica or the other."""
    missed: list[str] = []
    explaining = asyncio.Lock()

    async def work() -> None:
        while waiting:
            memory_id, (prompt, _) = waiting.pop()
            word = next(word for word in str(prompt).split() if word.startswith("qz"))
            door = len(waiting) % 2
            answer = await answer_of(person, door, "POST /search", body={"query": word})
            if ids_with_word(answer) != [memory_id]:
                async with explaining:
                    told = f"replica {door}{how(answer)}"
                    if len(missed) < MOST_EXPLAINED:
                        told = await why_not_found(stand, person, memory_id, word, answer, door)
                    missed.append(f"person {person.number}, {word}, in the end: {told}")

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return missed
