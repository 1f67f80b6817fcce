"""The save path's queue: all saves of the moment share a statement, or a transaction."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg
import structlog

from core.capture import Capture, merge
from core.errors import AccountErased, AppError, InvalidInput, Unavailable
from storage import memory_store
from storage.database import DATABASE_AWAY, Pool, acting_as
from storage.memory_store import Key, Row

log = structlog.get_logger()

MOST_WAITING = 2_000
MOST_WAITING_CHARACTERS = 64 * 1024 * 1024
MOST_IN_A_BATCH = 256
MOST_CHARACTERS_IN_A_BATCH = 8 * 1024 * 1024

# What a retry cannot mend. A client gives such a memory up, so nothing else may look like it.
THE_MEMORYS_FAULT = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    OverflowError,
)


@dataclass(frozen=True, slots=True)
class Saved:
    memory_id: UUID
    created_at: datetime
    created: bool


@dataclass(frozen=True, slots=True)
class _Waiting:
    capture: Capture
    answer: asyncio.Future[Saved]


class SaveQueue:
    """Takes captures from all requests; `run` writes them. An answer means COMMIT has returned."""

    def __init__(self, pool: Pool, on_saved: Callable[[], None] | None = None) -> None:
        self._pool = pool
        self._on_saved = on_saved
        self._waiting: deque[_Waiting] = deque()
        self._characters = 0
        self._arrived = asyncio.Event()
        self._closing = False

    @property
    def depth(self) -> int:
        return len(self._waiting)

    def save(self, capture: Capture) -> asyncio.Future[Saved]:
        """Await what this returns: it ends when the capture is safe.

        Raises Conflict (another content under the id), Unavailable (queue full, Postgres away),
        InvalidInput (Postgres refuses the row itself) and AccountErased.
        """
        if (
            self._closing
            or len(self._waiting) >= MOST_WAITING
            or self._characters + len(capture.text) > MOST_WAITING_CHARACTERS
        ):
            raise Unavailable("Too many saves are waiting; try again shortly.")
        answer: asyncio.Future[Saved] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(capture, answer))
        self._characters += len(capture.text)
        self._arrived.set()
        return answer

    async def run(self) -> None:
        """Write until `close`; what has been accepted by then is still written."""
        while self._waiting or not self._closing:
            if batch := self._next_batch():
                await self._write_apart(batch)
            else:
                self._arrived.clear()
                await self._arrived.wait()

    def close(self) -> None:
        self._closing = True
        self._arrived.set()

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        characters = 0
        while self._waiting and len(batch) < MOST_IN_A_BATCH:
            characters += len(self._waiting[0].capture.text)
            if batch and characters > MOST_CHARACTERS_IN_A_BATCH:
                break
            batch.append(self._waiting.popleft())
            self._characters -= len(batch[-1].capture.text)
        return batch

    async def _write_apart(self, batch: list[_Waiting]) -> None:
        """Prompts first: what is new takes one round trip, if nothing else is with it."""
        prompts = [item for item in batch if item.capture.side == "prompt"]
        responses = [item for item in batch if item.capture.side == "response"]
        try:
            for part in filter(None, (prompts, responses)):
                await self._write(part)
        finally:
            for item in responses:
                _settle(item.answer, Unavailable())

    async def _write(self, batch: list[_Waiting]) -> None:
        answers: Sequence[Saved | AppError] = [Unavailable()] * len(batch)
        try:
            answers = await write_together(self._pool, [item.capture for item in batch])
            if self._on_saved:
                self._on_saved()
        except DATABASE_AWAY as error:
            log.warning("save_failed", saves=len(batch), error=type(error).__name__)
        except (asyncpg.PostgresError, ValueError, OverflowError) as error:
            if len(batch) > 1:
                for item in batch:
                    await self._write([item])
                return
            log.error("save_refused", error=type(error).__name__)
            if isinstance(error, THE_MEMORYS_FAULT):
                answers = [InvalidInput("The database refuses this memory.")]
        finally:
            for item, answer in zip(batch, answers, strict=True):
                _settle(item.answer, answer)


def _settle(future: asyncio.Future[Saved], answer: Saved | AppError) -> None:
    """A client that has gone away has cancelled its future; its memory is saved all the same."""
    if future.done():
        return
    if isinstance(answer, AppError):
        future.set_exception(answer)
    else:
        future.set_result(answer)


async def write_together(pool: Pool, captures: Sequence[Capture]) -> list[Saved | AppError]:
    """Apply the captures in their order, all of them or none; one answer each.

    A prompt is new as a rule, and needs nothing to be read: one statement adds such.
    """
    per_user = Counter(capture.user_id for capture in captures)
    if all(capture.side == "prompt" for capture in captures):
        answers = await _add(pool, captures, per_user)
        if answers is not None:
            return answers
    async with acting_as(pool, per_user) as conn:
        last = await memory_store.take_numbers(conn, per_user)
        rows = await memory_store.rows_of(conn, list({capture.key for capture in captures}))
        before = {user_id: last[user_id] - per_user[user_id] for user_id in last}
        answers, changed = _merged(captures, rows, before)
        if changed:
            await memory_store.write(conn, changed)
    return answers


async def _add(
    pool: Pool, captures: Sequence[Capture], per_user: Mapping[UUID, int]
) -> list[Saved | AppError] | None:
    """Return None, and save nothing, where anything stands under one of the ids."""
    # Their numbers up to 0, which `add` makes the last of each user.
    before = {user_id: -count for user_id, count in per_user.items()}
    answers, rows = _merged(captures, {}, before)
    standing = await memory_store.add(pool, per_user, rows)
    if standing is None:
        return None
    return [
        answer if capture.user_id in standing else AccountErased()
        for capture, answer in zip(captures, answers, strict=True)
    ]


def _merged(
    captures: Sequence[Capture], rows: dict[Key, Row], number: dict[UUID, int]
) -> tuple[list[Saved | AppError], list[Row]]:
    """Return the answers, and what is to be written. `rows` are what stands, and then what will;
    `number` is the last of each user's changes before, and then after; who has none was erased."""
    changed: dict[Key, Row] = {}
    answers: list[Saved | AppError] = []
    for capture in captures:
        if capture.user_id not in number:
            answers.append(AccountErased())
            continue
        standing = rows.get(capture.key)
        is_new = standing is None or (
            capture.side == "prompt"
            and standing.prompt_capture is None
            and standing.deleted_at is None
        )
        try:
            row = merge(standing, capture)
        except AppError as error:
            answers.append(error)
            continue
        if row is not None:
            number[capture.user_id] += 1
            row.change_seq = number[capture.user_id]
            rows[capture.key] = changed[capture.key] = row
        created_at = rows[capture.key].created_at
        assert created_at is not None
        answers.append(Saved(capture.id, created_at, is_new))
    return answers, list(changed.values())
