"""A stand-in for a paid embedding provider: real HTTP, OpenAI's protocol, faults on demand."""

import asyncio
import base64
import hashlib
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

REFUSED = {"error": {"message": "This input is not accepted.", "type": "invalid_request_error"}}


@dataclass
class EmbeddingServer:
    """What a test reads and sets; `arrived` can be acquired once for each request taken."""

    url: str = ""
    dimensions: int = 1536
    poison: str | None = None  # a text that contains it is answered 400, with its whole batch
    speaks_base64: bool = True
    requests: list[dict[str, Any]] = field(default_factory=list)  # the JSON bodies, failed or not
    keys: list[str] = field(default_factory=list)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    faults: deque[tuple[int, dict[str, str], bytes]] = field(default_factory=deque)
    hanging: bool = False  # take requests, answer none
    pause: float = 0.0  # seconds before each answer
    by_words: bool = False  # texts that share words are near one another

    @property
    def batch_sizes(self) -> list[int]:
        return [len(request["input"]) for request in self.requests]

    def fail_next(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"{}"
    ) -> None:
        """Spoil one request, after those already spoilt; 200 with a strange body is possible."""
        self.faults.append((status, headers or {}, body))

    async def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        self.requests.append(body)
        self.arrived.release()
        if self.hanging:
            await asyncio.Event().wait()
        await asyncio.sleep(self.pause)
        if self.faults:
            return self.faults.popleft()
        if self.poison is not None and any(self.poison in text for text in body["input"]):
            return 400, {}, json.dumps(REFUSED).encode()
        rows = [
            {"object": "embedding", "index": index, "embedding": self._encoded(text, body)}
            for index, text in enumerate(body["input"])
        ]
        # Reversed, since only the index says which text a vector is of.
        reply = {"object": "list", "model": body["model"], "data": rows[::-1]}
        return 200, {}, json.dumps(reply).encode()

    def vector(self, text: str) -> np.ndarray:
        """The vector of a text, of no particular length: always the same one."""
        if self.by_words and len(words := text.split()) > 1:
            return np.sum([self.vector(word) for word in words], axis=0, dtype="<f4")
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
        return np.random.default_rng(seed).normal(size=self.dimensions).astype("<f4")

    def _encoded(self, text: str, body: dict[str, Any]) -> str | list[float]:
        vector = self.vector(text)
        if self.speaks_base64 and body.get("encoding_format") == "base64":
            return base64.b64encode(vector.tobytes()).decode()
        return vector.tolist()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one kept-alive connection until the client closes it."""
        while head := await _read_head(reader):
            target, headers = head
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            status, extra, reply = 404, {}, b"{}"
            if target == "POST /v1/embeddings":
                self.keys.append(headers.get("authorization", "").removeprefix("Bearer "))
                status, extra, reply = await self.answer(json.loads(body))
            writer.write(_response(status, extra, reply))
            await writer.drain()


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]] | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    return first.rpartition(" ")[0], {name.lower(): value.strip() for name, value in pairs}


def _response(status: int, headers: dict[str, str], body: bytes) -> bytes:
    headers = {"content-type": "application/json", **headers, "content-length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Told\r\n{lines}\r\n".encode() + body


@asynccontextmanager
async def embedding_server(dimensions: int = 1536) -> AsyncIterator[EmbeddingServer]:
    """Serve on a free port of this machine for as long as the block runs."""
    server = EmbeddingServer(dimensions=dimensions)
    conversations: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        conversations.add(task)
        try:
            await server.converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client gave up, or the test is over
        finally:
            conversations.discard(task)
            writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()
        for task in list(conversations):
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)
