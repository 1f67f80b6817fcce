"""Memories enter a prompt as data: whatever they say, the fence holds and nothing is captured."""

import asyncio
import json
import sys
import unicodedata
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from core.capture import Capture, merge
from core.context import make_sources
from core.conversation import turns_of, with_block
from core.hits import Hit, Why
from core.injection import END, MARK, RULE, Source, fence, seen, tokens_of, without_blocks
from core.snippets import snippet
from storage.analyzer import terms
from storage.memory_store import Memory
from tests.hostile_memories import HOSTILE

NOW = datetime(2026, 11, 21, tzinfo=UTC)
BUDGET = 2_000


def source(prompt="", response="", title=None):
    return Source(1, uuid4(), "claude", NOW, "c-1", title, prompt, response)


def hit(prompt, response="", matched="prompt", title=None):
    memory = Memory(
        uuid4(), prompt, response, False, "complete", "chatgpt", None, "c-1", title, None, None,
        {}, False, "done", NOW, NOW, NOW,
    )  # fmt: skip
    shown = snippet({"prompt": prompt, "response": response}[matched], set(), None)
    return Hit(memory, 1.0, True, matched, shown, Why(0.9, 1.0, 0.0, 0.0))


def check_block(block, expected):
    """Read a block back as a machine would; nothing but its own lines may stand in it."""
    rule, opening, *lines, closing = block.split("\n")
    boundary = opening.removeprefix(MARK)
    assert (rule, len(boundary), closing) == (RULE, 32, boundary + END)
    assert (block.count("<<<"), block.count(">>>"), block.count(boundary)) == (1, 1, 2)
    assert len(lines) == expected
    assert block.splitlines() == block.split("\n")
    assert seen(block.replace("\n", " ")) == block.replace("\n", " ")
    return [json.loads(line) for line in lines]


def test_the_corpus_is_large():
    assert len(set(HOSTILE)) >= 100


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_memory_stays_one_line_of_data(text):
    hits = [hit(text, "fine", title=text[:500]), hit("fine", text, "response"), hit(text, text)]

    sources = make_sources(hits, BUDGET)
    block = fence(sources)

    entries = check_block(block, len(sources))
    assert tokens_of(block) <= BUDGET
    assert sources
    for entry in entries:
        assert entry.keys() <= {"n", "id", "provider", "date", "conversation", "prompt", "answer"}
    assert [entry["n"] for entry in entries] == list(range(1, len(sources) + 1))
    assert without_blocks(f"{block}\n\nWhat is due?") == "What is due?"


def test_all_hostile_memories_together_stay_within_the_fence_and_the_budget():
    sources = make_sources([hit(text, text) for text in HOSTILE], 50_000)

    block = fence(sources)

    assert len(sources) > 100
    check_block(block, len(sources))
    assert tokens_of(block) <= 50_000


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_the_system_part_and_all_turns_but_the_last_stay_as_they_were(text):
    parts = [{"type": "tool_result", "content": "x"}, {"type": "text", "text": "And now?"}]
    messages = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "First."},
        {"role": "assistant", "content": "Ok."},
        {"role": "user", "content": parts},
    ]
    before = json.dumps(messages)
    block = fence([source(text, text, text)])

    changed = with_block(messages, block)

    assert json.dumps(messages) == before
    assert changed[:3] == messages[:3]
    assert changed[3]["content"] == [parts[0], {"type": "text", "text": block + "\n\n"}, parts[1]]
    assert without_blocks("".join(turns_of(changed)[-1:])).strip() == "And now?"


def test_every_boundary_is_new():
    assert len({fence([]) for _ in range(1_000)}) == 1_000


def test_what_nobody_sees_is_taken_out_and_letters_stay():
    allowed = {"\t", "\n"}
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co") and character not in allowed:
            assert not seen(character), hex(code)
    text = "Grüße, 漢字, العربية, हिन्दी, 👍🏽, a\tb\nc"
    assert seen(text) == text


def test_a_long_memory_is_cut_around_what_matched():
    text = "x " * 5_000 + "the walrus sleeps" + " y" * 5_000
    shown = snippet(text, set(terms("walrus")), None)
    long = hit("What does it do?", text, "response")
    long = Hit(long.memory, 1.0, True, "response", shown, long.why)

    (cut,) = make_sources([long], 400)

    assert "the walrus sleeps" in cut.response
    assert cut.response.startswith("…") and cut.response.endswith("…")
    assert cut.prompt == "What does it do?"


def test_what_a_short_memory_leaves_goes_to_the_next():
    sources = make_sources([hit("short"), hit("z" * 50_000)], 2_000)

    assert [len(s.prompt) > 5_000 for s in sources] == [False, True]


def test_only_whole_blocks_of_ours_are_taken_out():
    block = fence([source("a walrus")])
    lookalike = f"{MARK}{'0' * 32}\nand nothing more"

    for text in ("no block", lookalike, f"{'0' * 32}{END}", f"{MARK}x {lookalike}"):
        assert without_blocks(text) == text
    assert without_blocks(f"before {block} after {block}\r\n\r\nend") == "before  after end"
    as_a_page_shows_it = block.replace("\n", " ")
    assert without_blocks(as_a_page_shows_it + " my question") == " my question"
    assert without_blocks(fence([source(block, lookalike)]) + "\n\nask") == "ask"


def test_a_text_full_of_openings_is_read_in_no_time():
    text = (MARK + "0" * 32) * 20_000 + "f" * 100_000

    assert without_blocks(text) == text


async def test_a_thousand_rounds_of_injecting_and_capturing_store_no_injected_copy(
    client, alice, database
):
    """Each round recalls what the rounds before left, and sends it back as a page would show it."""
    seed = {"prompt": "The walrus of round zero", "provider": "claude"}
    assert (await client.post("/save-prompt", json=seed, headers=alice)).status_code == 201

    async def one(n):
        found = await client.post("/search", json={"query": "walrus round"}, headers=alice)
        hits = found.json()["data"]["hits"]
        memories = [hit(h["memory"]["prompt"], h["memory"]["response"] or "") for h in hits]
        block = fence(make_sources(memories, BUDGET))
        assert "walrus" in block
        body = {"prompt": f"{block}\n\nAsk about walrus round {n % 50}", "provider": "claude"}
        saved = (await client.post("/save-prompt", json=body, headers=alice)).json()["data"]
        answer = {"memory_id": saved["memory_id"], "response": f"{block}\nWalrus {n % 50}."}
        assert (await client.post("/save-response", json=answer, headers=alice)).status_code == 200

    for start in range(0, 1_000, 10):
        await asyncio.gather(*(one(start + n) for n in range(10)))

    stored = await database.fetch("SELECT prompt, response FROM memory_layer.memories")
    assert len(stored) == 1_001
    assert all("MEMORIES" not in f"{row['prompt']} {row['response']}" for row in stored)
    assert {len(row["prompt"]) < 40 for row in stored} == {True}


def test_a_retry_of_an_injected_capture_is_the_same_capture():
    user_id, memory_id = uuid4(), uuid4()

    def capture():
        return Capture(user_id, memory_id, "prompt", fence([source("walrus")]) + "\n\nAnd now?")

    row = merge(None, capture())

    assert row.prompt == "And now?"
    assert merge(row, capture()) is None
