"""One import, in a process of its own, so that it takes neither time nor memory of the service."""

import asyncio
import fcntl
import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from core.collector import spare_the_collector
from core.import_units import Ready, put, ready
from core.importers.formats import Export
from core.importers.turns import Unit, Unusable
from storage import imports, keyword_store, memory_store
from storage.database import Connection, Pool, acting_as, open_pool
from storage.imports import Job, Progress
from storage.keyword_store import Texts

# The user's lock is held for one batch: their saves wait for no longer than that.
MOST_TURNS = 100
MOST_CHARACTERS = 2 * 1024 * 1024
# Rests for so much of the time that a batch took, for everybody else's sake. Its commits are
# synchronous: after a crash of Postgres a change number may not come again for something else.
REST = 0.2
FIRST_ANALYZE = 500
NICENESS = 10
BUSY = 75  # EX_TEMPFAIL
# Far above what an import takes, and below what would hurt the machine.
MOST_MEMORY = 2 * 1024 * 1024 * 1024
# A site's clock and ours, and the time an answer took.
TWIN_SECONDS = 600
WHAT_ENDED_IT = {
    "cut": "The file ends in the middle; what came before was kept.",
    "not_json": "A part of the file is not valid JSON; what came before it was kept.",
    "damaged_zip": "The zip is damaged; what came before was kept.",
    "zip_bomb": "The zip grows far beyond its size; what came before was kept.",
    "too_many_files": "The zip holds too many files; what came before was kept.",
}


class Stopped(Exception):
    """The job was cancelled, or its account deleted."""


class Importer:
    def __init__(self, pool: Pool, user_id: UUID, job: Job, export: Export) -> None:
        self._pool = pool
        self._user_id = user_id
        self._job_id = job.id
        self._export = export
        self._passed = job.found
        self._reasons = Counter(job.reasons)
        self._counted = Counter(
            imported=job.imported, already_here=job.already_here, found=job.found
        )
        self._twins: set[UUID] = set()
        self._analyze_at = FIRST_ANALYZE

    async def run(self) -> None:
        """Go on behind what was counted before. Raises Stopped."""
        units = islice(self._export.units(), self._passed, None)
        loop, parent = asyncio.get_running_loop(), os.getppid()
        began = loop.time()
        while batch := self._next(units):
            if os.getppid() != parent:
                raise Stopped  # The service was killed; its next start goes on.
            new = await self._write(batch)
            await self._keep_plans_right()
            await self._keep_words(new)
            await asyncio.sleep(REST * (loop.time() - began))
            began = loop.time()
        state, message = self._outcome()
        async with acting_as(self._pool, self._user_id) as conn:
            await imports.finish(conn, self._user_id, self._job_id, state, message)

    async def _keep_words(self, rows: Sequence[memory_store.Row]) -> None:
        """Pack what search needs: for so many memories it would take minutes when first asked."""
        texts = [Texts(r.id, r.prompt, r.response, r.content_hash, r.occurred_at) for r in rows]
        packed = [(each, each.pack()) for each in texts]
        async with acting_as(self._pool, self._user_id) as conn:
            await keyword_store.keep(conn, self._user_id, packed)

    async def _keep_plans_right(self) -> None:
        """A table that grows faster than Postgres notices is read whole for a few rows."""
        if self._counted["imported"] >= self._analyze_at:
            await imports.analyze(self._pool)
            self._analyze_at *= 4

    def _next(self, units: Iterator[Unit]) -> list[Ready | Unusable]:
        batch: list[Ready | Unusable] = []
        characters = 0
        for unit in units:
            item = unit if isinstance(unit, Unusable) else ready(unit, self._user_id)
            batch.append(item)
            if isinstance(item, Ready):
                characters += sum(len(capture.text) for capture in item.captures)
            if len(batch) >= MOST_TURNS or characters >= MOST_CHARACTERS:
                break
        return batch

    async def _write(self, batch: Sequence[Ready | Unusable]) -> list[memory_store.Row]:
        """Return the rows of memories that were not there before."""
        turns = [item for item in batch if isinstance(item, Ready)]
        done = Progress(self._export.bytes_read, "+".join(self._export.formats) or None)
        done.found = len(batch)
        reasons = self._reasons.copy()
        for item in batch:
            if isinstance(item, Unusable):
                reasons[item.reason] += 1
                done.failed += item.failed
                done.skipped += not item.failed
        async with acting_as(self._pool, self._user_id) as conn:
            numbers = await memory_store.take_numbers(conn, {self._user_id: len(turns)})
            if self._user_id not in numbers:
                raise Stopped
            new = await self._write_turns(conn, turns, numbers[self._user_id], done, reasons)
            done.reasons = reasons
            if not await imports.advance(conn, self._user_id, self._job_id, done):
                raise Stopped
        self._reasons = reasons
        self._counted.update(
            found=done.found, imported=done.imported, already_here=done.already_here
        )
        return new

    async def _write_turns(
        self,
        conn: Connection,
        turns: Sequence[Ready],
        last: int,
        done: Progress,
        reasons: Counter[str],
    ) -> list[memory_store.Row]:
        rows = await memory_store.rows_of(conn, list({turn.key for turn in turns}))
        twins = await self._find_twins(conn, [turn for turn in turns if turn.key not in rows])
        stood = set(rows)
        changed: dict[memory_store.Key, memory_store.Row] = {}
        number = last - len(turns)
        for turn in turns:
            standing = rows.get(turn.key)
            if twins.get(turn.id) or (standing and standing.deleted_at):
                reasons["deleted"] += 1
                done.skipped += 1
            elif turn.id in twins or (row := put(standing, turn)) is None:
                done.already_here += 1
            else:
                number += 1
                row.change_seq = number
                rows[turn.key] = changed[turn.key] = row
                done.imported += 1
        if changed:
            await memory_store.write(conn, list(changed.values()))
        if edited := [row.id for row in changed.values() if row.edited]:
            await imports.mark_edited(conn, self._user_id, edited)
        return [row for key, row in changed.items() if key not in stood]

    async def _find_twins(self, conn: Connection, turns: Sequence[Ready]) -> dict[UUID, bool]:
        """Find the turns whose site names no message and that were captured live: the same prompt
        at about the same time, each memory for one turn. The value says whether it was deleted."""
        unnamed = [turn for turn in turns if turn.turn.anonymous and turn.turn.occurred_at]
        if not unnamed:
            return {}
        provider = unnamed[0].captures[0].provider or ""
        times = [_time(turn) for turn in unnamed]
        found = await imports.nearby(conn, self._user_id, provider, times, TWIN_SECONDS)
        twins: dict[UUID, bool] = {}
        for turn in unnamed:
            said = " ".join((turn.turn.prompt or "").split())
            same = [
                memory
                for memory in found
                if memory.id not in self._twins and " ".join(memory.prompt.split()) == said
            ]
            near = [
                m
                for m in same
                if abs((m.occurred_at - _time(turn)).total_seconds()) <= TWIN_SECONDS
            ]
            if said and near:
                twin = min(near, key=lambda m: (abs(m.occurred_at - _time(turn)), m.id))
                self._twins.add(twin.id)
                twins[turn.id] = twin.deleted
        return twins | await self._purged(conn, [t for t in unnamed if t.id not in twins])

    async def _purged(self, conn: Connection, turns: Sequence[Ready]) -> dict[UUID, bool]:
        """Find which of these were captured live, deleted and forgotten."""
        asked = [turn for turn in turns if turn.captures[0].side == "prompt"]
        prompts, times = [turn.captures[0].text for turn in asked], [_time(turn) for turn in asked]
        found = await imports.purged(conn, self._user_id, prompts, times)
        return {asked[place].id: True for place in found}

    def _outcome(self) -> tuple[imports.State, str | None]:
        """Nothing imported is no success, unless it was all here already."""
        ended = next((text for kind, text in WHAT_ENDED_IT.items() if self._reasons[kind]), None)
        if self._counted["imported"] or self._counted["already_here"]:
            return "done", ended
        if self._counted["found"]:
            told = ", ".join(f"{reason}: {n}" for reason, n in sorted(self._reasons.items()))
            return "failed", f"Nothing could be imported ({told})."
        return "failed", self._export.not_recognised()


def _time(turn: Ready) -> datetime:
    assert turn.turn.occurred_at is not None
    return turn.turn.occurred_at


async def run(url: str, user_id: UUID, job_id: UUID, path: Path) -> int:
    """Run a job whose file is at `path`; return BUSY where another process does."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return BUSY
        async with open_pool(url, 1, 1) as pool:
            await _run(pool, user_id, job_id, path, file)
    return 0


async def _run(pool: Pool, user_id: UUID, job_id: UUID, path: Path, file: BinaryIO) -> None:
    async with acting_as(pool, user_id) as conn:
        job = await imports.begin(conn, user_id, job_id)
    if job is None:
        return
    try:
        await Importer(pool, user_id, job, Export(file, path)).run()
    except Stopped:
        return
    except MemoryError:
        async with acting_as(pool, user_id) as conn:
            message = "The file needs more memory than an import may take."
            await imports.finish(conn, user_id, job_id, "failed", message)


def main() -> int:
    """Take what to do from standard input, where no other process can read it."""
    asked = json.loads(sys.stdin.readline())
    os.nice(NICENESS)
    spare_the_collector()
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    todo = run(asked["url"], UUID(asked["user"]), UUID(asked["job"]), Path(asked["path"]))
    return asyncio.run(todo)


if __name__ == "__main__":
    sys.exit(main())
