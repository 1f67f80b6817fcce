"""Does the service grow? Half an hour of ordinary use, from the moment its caches are full.

usage: python benchmarks/soak.py [--minutes 30] [--people 60] [--memories 250] [--index-mb 16]

The people of benchmarks/load.py, fewer of them: what is measured is not speed. So many memories
stand before that the search caches go beyond their budget and drive each other out all the time.
Resident memory counts the service and its children. Compared are the medians of the first and the
last sixth; of connections to the database the most, as a pool opens and closes them. Exit status 1
where one grew by more than 5 %, or a request failed.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import asyncpg  # noqa: E402
import psutil  # noqa: E402

from benchmarks.load import Load, locust, stage  # noqa: E402
from storage.embedded_postgres import embedded_postgres  # noqa: E402
from storage.migrate import migrate  # noqa: E402

GROWTH_BOUND = 0.05
WARM_UP_SECONDS = 240
PAUSE = 5.0


@dataclass(frozen=True)
class Sample:
    """What the service holds at one moment."""

    resident_mb: float
    descriptors: int
    sockets: int
    database_connections: int


async def sample(process: psutil.Process, database: asyncpg.Connection) -> Sample:
    resident = 0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            resident += each.memory_info().rss
    return Sample(
        resident / 2**20,
        process.num_fds(),
        len(process.net_connections()),
        await database.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ),
    )


async def watch(process: psutil.Process, url: str, samples: list[Sample]) -> None:
    database = await asyncpg.connect(url)
    while True:
        samples.append(await sample(process, database))
        await asyncio.sleep(PAUSE)


async def soak(url: str, people: int, seconds: float, memories: int, index_mb: int) -> bool:
    settings = {"DEFAULT_TIER": "enterprise", "INDEX_MEMORY_MB": str(index_mb)}
    async with stage("local", url, people, memories, 1, **settings) as on:
        await locust(on.addresses, on.tokens, people, WARM_UP_SECONDS)
        samples: list[Sample] = []
        watching = asyncio.create_task(watch(on.processes[0], url, samples))
        load = await locust(on.addresses, on.tokens, people, seconds)
        watching.cancel()
    return report(people, seconds, load, samples)


def report(people: int, seconds: float, load: Load, samples: list[Sample]) -> bool:
    # Locust comes and goes at the two ends.
    samples = samples[2:-2]
    sixth = len(samples) // 6
    print(f"\n| {people} people, {seconds / 60:.0f} minutes | each sixth | growth | bound |")
    print("| --- | --- | --- | --- |")
    worst = 0.0
    for name in (field.name for field in fields(Sample)):
        values = [float(getattr(each, name)) for each in samples]
        typical = max if name == "database_connections" else statistics.median
        sixths = [typical(values[n * sixth : (n + 1) * sixth]) for n in range(6)]
        worst = max(worst, growth := sixths[-1] / sixths[0] - 1)
        each = ", ".join(f"{value:.0f}" for value in sixths)
        print(f"| {name.replace('_', ' ')} | {each} | {growth:+.1%} | {GROWTH_BOUND:.0%} |")
    print(f"| requests, failed | {load.requests}, {load.failed} | | 0 |", flush=True)
    return worst <= GROWTH_BOUND and load.failed == 0


async def main(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # noqa: ASYNC240 - nothing else runs yet
        async with embedded_postgres(Path(folder) / "data", lambda _: None) as url:
            await migrate(url)
            seconds = options.minutes * 60
            passed = await soak(url, options.people, seconds, options.memories, options.index_mb)
    return 0 if passed else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--memories", type=int, default=250)
    parser.add_argument("--index-mb", type=int, default=16)
    sys.exit(asyncio.run(main(parser.parse_args())))
