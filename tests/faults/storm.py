"""People live through a storm of faults; then everything that they were told is checked."""

import asyncio
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.faults.check import check_everything
from tests.faults.people import Person
from tests.faults.schedule import AT_NO_MOMENT, NOT_STAGED, Fault, Storm, draw
from tests.faults.stand import Stand, open_stand

PEOPLE = 16
CALM_KILLS = 3
RECOVERY_BOUND = 5.0
PATIENCE = 120.0
LONGEST_CHAT = 7.0

Row = tuple[str, str, str]


@dataclass
class Report:
    """What happened, and what should not have: each list names the cases."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    searches: int = 0
    duplicate_deliveries: int = 0
    outcomes: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    calm_recoveries: list[float] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def complaints(self) -> list[str]:
        named = {"lost": self.lost, "doubled": self.doubled, "stale": self.stale}
        found = [f"{name}: {case}" for name, cases in named.items() for case in cases]
        return found + self.wrong

    @property
    def staged(self) -> int:
        return self.faults.total() - self.faults[AT_NO_MOMENT] - 2 * self.faults[NOT_STAGED]

    def rows(self) -> list[Row]:
        """The figure's name, the figure, and its bound."""
        return [
            ("faults", str(self.staged), ""),
            ("saves acknowledged", str(self.acknowledged), ""),
            ("of those lost or altered", str(len(self.lost)), "0"),
            ("doubled, brought back, or there though refused", str(len(self.doubled)), "0"),
            (
                f"stale among {self.searches} searches for what was just acknowledged",
                str(len(self.stale)),
                "0",
            ),
            ("500s, lost sessions, processes that ended", str(len(self.wrong)), "0"),
            (
                f"kill -9 of Postgres to an acknowledged save, slowest of "
                f"{len(self.calm_recoveries)}: s",
                _of(max, self.calm_recoveries),
                f"{RECOVERY_BOUND:.0f}",
            ),
            (
                f"the same amid other faults, median and slowest of {len(self.recoveries)}: s",
                f"{_of(statistics.median, self.recoveries)}, {_of(max, self.recoveries)}",
                "",
            ),
            ("saves sent twice on purpose", str(self.duplicate_deliveries), ""),
            (
                "requests, of those without an answer, and with 5xx",
                f"{self.outcomes.total()}, {self.outcomes[0]}, "
                f"{sum(n for status, n in self.outcomes.items() if status >= 500)}",
                "",
            ),
        ]


def _of(reckon: Callable[[Iterable[float]], float], times: list[float]) -> str:
    return f"{reckon(times):.2f}" if times else "-"


async def live_through(
    seed: int,
    faults: int,
    saves: int = 0,
    seconds: float = math.inf,
    most_searches: int = 1_000_000,
) -> Report:
    """Have so many faults, spread over so many acknowledged saves.

    After so many seconds it is over in any case. In the end the memories are searched one by one,
    `most_searches` of them.
    """
    began = time.monotonic()
    report = Report(seed)
    async with open_stand() as stand:
        storm = Storm(stand)
        doors = [replica.url for replica in stand.replicas]
        crowd = [
            Person(n, doors, random.Random(seed * 1_000 + n), storm.acknowledged)
            for n in range(PEOPLE)
        ]
        await asyncio.gather(*(person.sign_up() for person in crowd))
        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for person in crowd:
                tasks.create_task(person.live(over))
            report.calm_recoveries = await calm_kills(storm, min(CALM_KILLS, faults))
            drawn = list(draw(seed, faults - len(report.calm_recoveries)))
            await storm.rage(drawn, saves, seconds)
            await make_well(stand)
            over.set()
        # A chat that nobody waits for any more may still be on its way to being kept.
        await asyncio.sleep(LONGEST_CHAT)
        report.lost, report.doubled, missed = await check_everything(stand, crowd, most_searches)
        report.stale = missed
        for person in crowd:
            await person.close()
    gather(report, storm, crowd)
    report.seconds = time.monotonic() - began
    return report


async def calm_kills(storm: Storm, count: int) -> list[float]:
    """Kill Postgres while nothing else is amiss; return how long nobody's save came through."""
    await asyncio.sleep(0.5)
    for _ in range(count):
        await storm.rage([Fault("Postgres: kill -9 of all of it", 0, 0, 0)])
        async with asyncio.timeout(PATIENCE):
            while storm.killed_at is not None:  # noqa: ASYNC110 - polled as finely as it matters
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
    calm, storm.recoveries = storm.recoveries, []
    return calm


async def make_well(stand: Stand) -> None:
    stand.heal()
    for replica in stand.replicas:
        await replica.look_after()


def gather(report: Report, storm: Storm, crowd: list[Person]) -> None:
    stand = storm.stand
    report.faults = storm.done
    report.recoveries = storm.recoveries
    report.acknowledged = sum(person.acknowledged for person in crowd)
    for person in crowd:
        report.searches += person.found.searches
        report.duplicate_deliveries += person.found.duplicate_deliveries
        report.outcomes += person.outcomes
        report.stale += person.found.stale
        report.wrong += person.found.wrong
    report.outcomes[0] += 0
    for replica in stand.replicas:
        report.wrong += replica.ended_badly
