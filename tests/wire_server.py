"""A small HTTP server for tests: it remembers what it was sent, and answers what it is told to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sent:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class WireServer:
    """`answer` maps a request to status, content type and body."""

    answer: Callable[[Sent], tuple[int, str, bytes]]
    address: str = ""
    requests: list[Sent] = field(default_factory=list)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.rstrip("\r\n").split("\r\n")
                pairs = (line.split(":", 1) for line in lines)
                headers = {name.lower(): value.strip() for name, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = first.split(" ")
                self.requests.append(Sent(method, path, headers, body))
                status, kind, reply = self.answer(self.requests[-1])
                writer.write(
                    f"HTTP/1.1 {status} Told\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(reply)}\r\n\r\n".encode()
                    + reply
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def wire_server(
    answer: Callable[[Sent], tuple[int, str, bytes]],
) -> AsyncIterator[WireServer]:
    """Serve on a free port of this machine for as long as the block runs."""
    server = WireServer(answer)
    listener = await asyncio.start_server(server.converse, "127.0.0.1", 0)
    server.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
