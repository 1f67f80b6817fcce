"""The counters that all replicas share, in Redis or Valkey."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from hiredis import pack_command
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.maint_notifications import MaintNotificationsConfig

from storage.counters import LUA, Ask, Count, CountersAway

SECONDS = 0.05  # for a connection, an answer, and both together
TICKS = 3  # that these seconds are made of
LONGEST = 1.0  # of the library's own patience, which a stall of this process must not use up
MOST_IN_A_PIPELINE = 512
SHA = hashlib.sha1(LUA.encode(), usedforsecurity=False).hexdigest()  # what EVALSHA names it


class RedisCounters:
    """Sends all calls of one turn of the loop, and those that came since, in one pipeline."""

    def __init__(self, url: str) -> None:
        # The library's own defaults wait 25 s for a server that hangs.
        self._client = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url,
                max_connections=1,
                timeout=LONGEST,
                # Of ours there is one around all; the library's makes a task of each write.
                socket_timeout=None,
                socket_connect_timeout=LONGEST,
                retry=Retry(NoBackoff(), 0),
                # One question more of every connection, which only Redis' own cloud answers.
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
            )
        )
        self._waiting: list[tuple[Ask, asyncio.Future[Count]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def spend(self, ask: Ask) -> Count:
        """Raise CountersAway within SECONDS, also for those that wait behind others."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Count] = loop.create_future()
        self._waiting.append((ask, answer))
        if self._sender is None:
            self._sender = loop.create_task(self._send_all())
        try:
            return await answer
        finally:
            # An error holds this frame, and `answer` the error: a ring for the collector.
            del answer

    async def forget(self, user_id: UUID | str) -> None:
        with contextlib.suppress(RedisError, OSError):
            async with _patience():
                await self._client.delete(*_keys(user_id))

    async def aclose(self) -> None:
        if self._sender:
            self._sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sender
        with contextlib.suppress(RedisError, OSError):
            await self._client.aclose()

    async def _send_all(self) -> None:
        batch: list[tuple[Ask, asyncio.Future[Count]]] = []
        timed_out = False
        try:
            while self._waiting:
                batch = self._waiting[:MOST_IN_A_PIPELINE]
                del self._waiting[:MOST_IN_A_PIPELINE]
                async with _patience():
                    replies = await self._ask([ask for ask, _ in batch])
                for (_, answer), reply in zip(batch, replies, strict=True):
                    _settle(answer, reply)
                batch = []
        except (RedisError, OSError) as error:
            timed_out = isinstance(error, TimeoutError | RedisTimeout)
            # No reply that comes late may be taken for another user's.
            with contextlib.suppress(RedisError, OSError):
                await self._client.connection_pool.disconnect(inuse_connections=True)
        finally:
            self._sender = None
            unanswered, self._waiting = batch + self._waiting, []
            for _, answer in unanswered:
                _settle(answer, CountersAway(timed_out=timed_out))

    async def _ask(self, asks: Sequence[Ask]) -> list[object]:
        replies = await self._run(asks)
        unknown = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            await self._client.script_load(LUA)
            again = await self._run([asks[n] for n in unknown])
            for n, reply in zip(unknown, again, strict=True):
                replies[n] = reply
        return replies

    async def _run(self, asks: Sequence[Ask]) -> list[object]:
        """What the library's pipeline does, for half of its price."""
        pool = self._client.connection_pool
        connection: AbstractConnection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.send_packed_command(b"".join(_evalsha(ask) for ask in asks))
            return [await _reply(connection) for _ in asks]
        finally:
            await pool.release(connection)


@asynccontextmanager
async def _patience() -> AsyncIterator[None]:
    """Raise TimeoutError after SECONDS, in ticks between each of which the loop has run.

    After a stall of our own loop a plain time-out fires before the answer is read that has long
    been there, and a Redis in the best of health is taken for away.
    """
    loop, left = asyncio.get_running_loop(), TICKS
    handle: asyncio.TimerHandle

    # One that knew itself by its name would be a ring: a call each for the collector.
    def tick(again: Callable[..., None]) -> None:
        nonlocal left, handle
        left -= 1
        if left:
            handle = loop.call_later(SECONDS / TICKS, again, again)
        else:
            ending.reschedule(loop.time())

    handle = loop.call_later(SECONDS / TICKS, tick, tick)
    try:
        async with asyncio.timeout(None) as ending:
            yield
    finally:
        handle.cancel()


def _evalsha(ask: Ask) -> bytes:
    user_id, *numbers = ask
    command = ("EVALSHA", SHA, 2, *_keys(user_id), *numbers)
    return bytes(pack_command(command))  # type: ignore[arg-type]  # of any length


async def _reply(connection: AbstractConnection) -> object:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _keys(user_id: UUID | str) -> tuple[str, str]:
    return f"requests:{{{user_id}}}:minute", f"requests:{{{user_id}}}:day"


def _settle(answer: asyncio.Future[Count], reply: object) -> None:
    if answer.done():
        return
    if isinstance(reply, CountersAway):
        answer.set_exception(reply)
    elif isinstance(reply, list):
        answer.set_result(Count(*reply))
    else:
        answer.set_exception(CountersAway(timed_out=False))
