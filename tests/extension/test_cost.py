"""What the extension costs the page: the time of its main thread that the tap takes."""

from typing import Any

from playwright.async_api import Page

from tests.extension.conftest import Extension, whole
from tests.extension.sites import Plan, Sites

CHUNKS = 3_000
MOST_MS_PER_100_CHUNKS = 1.0
TRIES = 6


async def profiled(extension: Extension, page: Page, prompt: str) -> dict[str, Any]:
    """A CPU profile of the page's main thread while an answer streams in."""
    session = await extension.chrome.new_cdp_session(page)
    await session.send("Profiler.enable")
    await session.send("Profiler.setSamplingInterval", {"interval": 100})
    await session.send("Profiler.start")
    await extension.say(page, prompt)
    profile: dict[str, Any] = (await session.send("Profiler.stop"))["profile"]
    await session.detach()
    return profile


def milliseconds_below(profile: dict[str, Any], script: str) -> float:
    """Time of samples that have a function of the script anywhere on their stack."""
    nodes = {node["id"]: node for node in profile["nodes"]}
    inside: set[int] = set()

    def mark(node_id: int, below: bool) -> None:
        node = nodes[node_id]
        below = below or node["callFrame"]["url"].endswith(script)
        if below:
            inside.add(node_id)
        for child in node.get("children", []):
            mark(child, below)

    mark(profile["nodes"][0]["id"], False)
    spent = zip(profile["samples"], profile["timeDeltas"], strict=True)
    return sum(delta for sample, delta in spent if sample in inside) / 1_000


async def test_the_tap_takes_at_most_a_millisecond_for_100_chunks(
    extension: Extension, sites: Sites
) -> None:
    page = await extension.open("claude")
    costs = []
    for n in range(TRIES):
        plan = Plan(answer="word " * CHUNKS, chunks=CHUNKS)
        sites.plan(f"Stream {n}", plan)
        profile = await profiled(extension, page, f"Stream {n}")
        costs.append(milliseconds_below(profile, "/tap.js") / (sites.sent / 100))
        if costs[-1] <= MOST_MS_PER_100_CHUNKS:
            break
    await extension.until_saved(whole(len(costs)))

    print(f"tap: {min(costs):.3f} ms of the main thread per 100 chunks, of {costs}")
    # Others use this machine too: the best of a few is what the tap itself takes.
    assert 0 < min(costs) <= MOST_MS_PER_100_CHUNKS
