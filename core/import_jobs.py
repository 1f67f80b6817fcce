"""Uploaded exports: kept on this machine's disk until a process of its own has imported them."""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import structlog

from core.config import ROOT, Settings
from core.errors import Conflict, InvalidInput, NotFound, TooLarge, Unavailable
from core.importing import BUSY
from storage import imports
from storage.database import DATABASE_AWAY, Pool, acting_as, acting_as_worker
from storage.ids import uuid7
from storage.imports import Job

log = structlog.get_logger()

MIB = 1024 * 1024
MOST_UNFINISHED = 10
# What must stay free on the disk, which is Postgres' too at home.
KEPT_FREE = 1024 * MIB
WRITE_AT_ONCE = MIB
LOOK_EVERY_SECONDS = 30.0
# Another process of this machine imports: one that was killed leaves at its next batch.
BUSY_SECONDS = 2.0
# A job whose file no replica has told of for so long is lost: a host has forgotten its disk.
LOST_AFTER_SECONDS = 900
LOST = "The server no longer has the file: send it again. What was imported of it is kept."
BROKEN = "The import ended unexpectedly: a fault of ours. What was imported is kept."
MOST_CRASHES = 3
UNFINISHED_UPLOAD = ".upload"
OLDEST_UPLOAD_SECONDS = 4 * 3_600


@dataclass(frozen=True, slots=True)
class Standing:
    """A job, and how many of its user's memories wait for their vectors."""

    job: Job
    to_embed: int


def folders_of(settings: Settings, url: str) -> list[Path]:
    """Where uploads may wait, the best first: in DATA_DIR, or the system's temporary folder.

    Each database has a folder of its own, since what no job of it needs is deleted there.
    """
    address = urlsplit(url)
    place = f"{address.hostname}:{address.port}{address.path}?{address.query}"
    name = hashlib.sha256(place.encode()).hexdigest()[:16]
    parents = (settings.data_dir, Path(tempfile.gettempdir()) / "memory-layer")
    return [parent / "imports" / name for parent in parents]


def _first_writable(folders: Sequence[Path]) -> Path:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise Unavailable("This server has no disk to import from.")


class ImportJobs:
    def __init__(self, pool: Pool, url: str, settings: Settings) -> None:
        self._pool = pool
        self._url = url
        self._most_bytes = settings.import_max_mb * MIB
        self._folders = folders_of(settings, url)
        self._arrived = asyncio.Event()
        self._crashes: Counter[UUID] = Counter()

    async def receive(
        self, user_id: UUID, file_name: str | None, chunks: AsyncIterator[bytes]
    ) -> Job:
        """Write what arrives to disk and queue it; on failure nothing stays.

        Raises TooLarge, InvalidInput for an empty file, Conflict where too much of the user waits
        already, and Unavailable where the disk is full.
        """
        async with acting_as(self._pool, user_id) as conn:
            jobs, waiting = await imports.unfinished(conn, user_id)
        if jobs >= MOST_UNFINISHED:
            raise Conflict("Too many imports wait already; let them finish first.")
        folder = await asyncio.to_thread(_first_writable, self._folders)
        job_id = uuid7()
        uploading = folder / f"{job_id}{UNFINISHED_UPLOAD}"
        try:
            size = await self._write(uploading, chunks, self._most_bytes - waiting)
            if not size:
                raise InvalidInput("The file is empty.")
            async with acting_as(self._pool, user_id) as conn:
                job = await imports.add(conn, user_id, job_id, file_name, size)
            # Not before the COMMIT: a file that no job needs is deleted.
            uploading.rename(folder / str(job_id))
        finally:
            uploading.unlink(missing_ok=True)  # unless it has its own name by now
        self._arrived.set()
        return job

    async def _write(self, path: Path, chunks: AsyncIterator[bytes], most: int) -> int:
        size, waiting = 0, bytearray()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > most:
                    raise TooLarge("The file, with those that wait already, is too large.")
                waiting += chunk
                if len(waiting) >= WRITE_AT_ONCE:
                    await asyncio.to_thread(_append, descriptor, bytes(waiting))
                    waiting.clear()
            await asyncio.to_thread(_append, descriptor, bytes(waiting))
            await asyncio.to_thread(os.fsync, descriptor)
        finally:
            os.close(descriptor)
        return size

    async def read(self, user_id: UUID, job_id: UUID) -> Standing:
        async with acting_as(self._pool, user_id) as conn:
            job = await imports.read(conn, user_id, job_id)
            if job is None:
                raise NotFound("There is no such import.")
            return Standing(job, await imports.to_embed(conn, user_id))

    async def listed(self, user_id: UUID) -> list[Job]:
        async with acting_as(self._pool, user_id) as conn:
            return await imports.listed(conn, user_id)

    async def cancel(self, user_id: UUID, job_id: UUID) -> Standing:
        """Stop a job that waits or runs; what was imported stays. A finished one is as it is."""
        async with acting_as(self._pool, user_id) as conn:
            await imports.finish(conn, user_id, job_id, "cancelled", None)
        self._arrived.set()
        return await self.read(user_id, job_id)

    async def run(self) -> None:
        """Import one file after the other, the oldest first, until cancelled."""
        while True:
            self._arrived.clear()
            waiting = await self._look()
            if free := await asyncio.to_thread(_first_free, waiting):
                await self._import(*free)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BUSY_SECONDS if waiting else LOOK_EVERY_SECONDS):
                        await self._arrived.wait()

    async def _look(self) -> list[tuple[imports.Waiting, Path]]:
        """Find the jobs whose files are here, and delete the files that no job needs any more."""
        files = await asyncio.to_thread(_files, self._folders)
        async with acting_as_worker(self._pool) as conn:
            waiting = await imports.waiting(conn, list(files)) if files else []
            await imports.give_up_lost(conn, LOST_AFTER_SECONDS, LOST)
        for job_id in files.keys() - {job.id for job in waiting}:
            files[job_id].unlink(missing_ok=True)
            self._crashes.pop(job_id, None)
        return [(job, files[job.id]) for job in waiting]

    async def _import(self, waiting: imports.Waiting, path: Path) -> None:
        asked = {
            "url": self._url,
            "user": str(waiting.user_id),
            "job": str(waiting.id),
            "path": str(path),
        }
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "core.importing", cwd=ROOT, stdin=asyncio.subprocess.PIPE
        )
        beating = asyncio.create_task(self._tell_that_it_is_here())
        try:
            await child.communicate(json.dumps(asked).encode() + b"\n")
        finally:
            beating.cancel()
            if child.returncode is None:
                child.terminate()
                await child.wait()
        if child.returncode not in (0, BUSY):
            await self._crashed(waiting, child.returncode or 0)

    async def _tell_that_it_is_here(self) -> None:
        """While one runs, those behind it are not lost either, and what is cancelled goes."""
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            with contextlib.suppress(*DATABASE_AWAY):
                await self._look()

    async def _crashed(self, waiting: imports.Waiting, code: int) -> None:
        """Try again, since the database may have been away, but not for ever."""
        self._crashes[waiting.id] += 1
        log.warning("import_ended", job=str(waiting.id), code=code)
        if self._crashes[waiting.id] >= MOST_CRASHES:
            async with acting_as(self._pool, waiting.user_id) as conn:
                await imports.finish(conn, waiting.user_id, waiting.id, "failed", BROKEN)
        else:
            await asyncio.sleep(2)


def _append(descriptor: int, data: bytes) -> None:
    disk = os.fstatvfs(descriptor)
    if disk.f_bavail * disk.f_frsize < KEPT_FREE + len(data):
        raise Unavailable("This server's disk is too full for an import.")
    while data:
        data = data[os.write(descriptor, data) :]


def _first_free(
    waiting: Sequence[tuple[imports.Waiting, Path]],
) -> tuple[imports.Waiting, Path] | None:
    """Find the first whose file no other process holds, as `importing.run` does."""
    for job, path in waiting:
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return job, path
    return None


def _files(folders: Sequence[Path]) -> dict[UUID, Path]:
    """Name the complete uploads by their jobs; clear away uploads that broke off."""
    files: dict[UUID, Path] = {}
    for path in (path for folder in folders if folder.is_dir() for path in folder.iterdir()):
        if path.suffix == UNFINISHED_UPLOAD:
            if time.time() - path.stat().st_mtime > OLDEST_UPLOAD_SECONDS:
                path.unlink(missing_ok=True)
        else:
            with contextlib.suppress(ValueError):
                files[UUID(path.name)] = path
    return files
