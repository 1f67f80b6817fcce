"""A TCP proxy in front of one part: it holds up, loses and breaks what passes."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# To send RST where an ordinary close would send FIN.
RESET = struct.pack("ii", 1, 0)


@dataclass
class Trap:
    """Springs when `needle` passes on its way to the part: `before` it gets there, or when the
    part has answered it and the answer is `lost`."""

    needle: bytes
    when: Literal["before", "lost"]
    spring: Callable[[], None]
    sprung: asyncio.Event = field(default_factory=asyncio.Event)

    def fire(self) -> None:
        self.spring()
        self.sprung.set()


class Link:
    """One client's connection and ours to the part behind."""

    def __init__(self, client: asyncio.StreamWriter, part: asyncio.StreamWriter) -> None:
        self._writers = (client, part)
        self.trap: Trap | None = None

    def reset(self) -> None:
        for writer in self._writers:
            if (sock := writer.get_extra_info("socket")) and sock.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


class Proxy:
    def __init__(self, connect: Callable[[], Awaitable[Streams]]) -> None:
        self._connect = connect
        self._links: set[Link] = set()
        self._open = asyncio.Event()
        self.port = 0
        self.replies_to_lose = 0
        self.trap: Trap | None = None
        self.heal()

    def heal(self) -> None:
        self.delay, self.refusing, self.replies_to_lose, self.trap = 0.0, False, 0, None
        self._open.set()

    def hang(self) -> None:
        """Take connections and bytes, and pass nothing on until healed."""
        self._open.clear()

    def reset(self) -> None:
        for link in list(self._links):
            link.reset()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.refusing:
                return
            part_reader, part_writer = await self._connect()
            link = Link(writer, part_writer)
            self._links.add(link)
            try:
                await asyncio.wait(
                    [
                        asyncio.create_task(self._ask(link, reader, part_writer)),
                        asyncio.create_task(self._answer(link, part_reader, writer)),
                    ]
                )
            finally:
                self._links.discard(link)
                part_writer.close()
        except OSError:
            pass
        finally:
            writer.close()

    async def _ask(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._hold_up()
                if self.trap and self.trap.needle in data:
                    if self.trap.when == "before":
                        self._take_trap().fire()
                        break
                    link.trap = self._take_trap()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _answer(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._hold_up()
                if link.trap:
                    link.trap.fire()
                    break
                if self.replies_to_lose:
                    self.replies_to_lose -= 1
                    link.reset()
                    break
                writer.write(data)
                await writer.drain()
        writer.close()

    def _take_trap(self) -> Trap:
        trap, self.trap = self.trap, None
        assert trap
        return trap

    async def _hold_up(self) -> None:
        await self._open.wait()
        if self.delay:
            await asyncio.sleep(self.delay)


@contextlib.asynccontextmanager
async def proxy_to(*, port: int | None = None, path: str | None = None) -> AsyncIterator[Proxy]:
    """Serve on a free port of this machine, in front of another port or of a socket's path."""

    async def connect() -> Streams:
        if path:
            return await asyncio.open_unix_connection(path)
        return await asyncio.open_connection("127.0.0.1", port)

    proxy = Proxy(connect)
    conversations: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.accept(reader, writer))
        conversations.add(task)
        task.add_done_callback(conversations.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=1_000)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listener.close()
        proxy.heal()
        proxy.reset()
        if conversations:
            await asyncio.wait(conversations, timeout=5)
