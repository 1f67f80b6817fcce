"""Background jobs: each due one is run by one replica; what came of it is kept in the database."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from core.errors import NotFound
from core.supabase_users import DirectoryAway
from storage import job_runs
from storage.database import DATABASE_AWAY, Pool
from storage.job_runs import JobRun, acting_as_janitor

log = structlog.get_logger()

LOOK_EVERY = 10.0  # seconds
LONGEST_RUN = 300  # seconds; then it is stopped, and goes on when it is due again
LONGEST_DETAIL = 300  # characters


@dataclass(frozen=True, slots=True)
class Job:
    """`work` may be repeated and stopped at any time, and returns what came of it, in few words
    that name nobody. One that runs `everywhere` is about each replica's own memory."""

    name: str
    every: int  # seconds
    what: str
    work: Callable[[], Awaitable[str]]
    everywhere: bool = False


class Jobs:
    def __init__(self, pool: Pool, jobs: Sequence[Job]) -> None:
        self._pool = pool
        self._jobs = {job.name: job for job in jobs}
        self._shared = [job.name for job in jobs if not job.everywhere]
        self._due_here = {job.name: time.monotonic() for job in jobs if job.everywhere}

    async def run(self) -> None:
        """Run what is due, one after the other, for ever."""
        registered = False
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                if not registered:
                    await self.register()
                    registered = True
                await self.run_due()
            except DATABASE_AWAY as error:
                log.warning("jobs_waiting", error=type(error).__name__)

    async def register(self) -> None:
        async with acting_as_janitor(self._pool) as conn:
            await job_runs.register(conn, [(j.name, j.what, j.every) for j in self._jobs.values()])

    async def run_due(self) -> list[str]:
        """Return the names of the jobs whose turn it was here."""
        ran = []
        while (taken := await self._take_due()) is not None:
            name, started_at = taken
            await self._run(self._jobs[name], started_at)
            ran.append(name)
        return ran

    async def run_now(self, name: str) -> JobRun:
        """Raise NotFound for a name that no job has."""
        if name not in self._jobs:
            raise NotFound("There is no such job.", name=name)
        # An operator may be here before the first turn of the loop.
        await self.register()
        async with acting_as_janitor(self._pool) as conn:
            started_at = await job_runs.take(conn, name)
        await self._run(self._jobs[name], started_at)
        return next(run for run in await self.list_runs() if run.name == name)

    async def list_runs(self) -> list[JobRun]:
        """The last run of every job, by name."""
        return await job_runs.list_runs(self._pool)

    async def _take_due(self) -> tuple[str, datetime] | None:
        async with acting_as_janitor(self._pool) as conn:
            for name, due in self._due_here.items():
                if time.monotonic() >= due:
                    self._due_here[name] = time.monotonic() + self._jobs[name].every
                    return name, await job_runs.take(conn, name)
            return await job_runs.take_due(conn, self._shared, LONGEST_RUN)

    async def _run(self, job: Job, started_at: datetime) -> None:
        outcome, detail = "failed", "stopped"
        try:
            async with asyncio.timeout(LONGEST_RUN):
                detail = await job.work()
            outcome = "ok"
        except (*DATABASE_AWAY, DirectoryAway) as error:
            detail = type(error).__name__
            log.warning("job_failed", job=job.name, error=detail)
        except BaseException as error:
            detail = type(error).__name__
            raise
        finally:
            async with acting_as_janitor(self._pool) as conn:
                text = detail[:LONGEST_DETAIL]
                await job_runs.finish(conn, job.name, started_at, outcome, text)
