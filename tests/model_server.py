"""A stand-in for paid model providers: real HTTP, OpenAI's and Anthropic's protocols, faults."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

MODELS = [{"id": "walrus-1", "object": "model"}, {"id": "walrus-2", "object": "model"}]
# A field that no SDK knows, which a relay must not lose.
EXTRA = "x_walrus_extra"


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    raw: bytes = b""


@dataclass
class Fault:
    """What goes wrong with one reply. `after` counts the events that still go out before it."""

    kind: str
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: int = 0
    seconds: float = 0.0


@dataclass
class ModelServer:
    """What a test sets and reads; `gone` can be acquired once for each client that left early."""

    url: str = ""
    reply: list[str] = field(default_factory=lambda: ["The ", "walrus ", "sleeps."])
    tool_calls: bool = False
    counts_tokens: bool = True
    pause: float = 0.0  # seconds between two events
    received: list[Received] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)  # the bodies of replies
    faults: deque[Fault] = field(default_factory=deque)
    gone: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    connections: int = 0

    @property
    def openai_url(self) -> str:
        return self.url + "/v1"

    def fail_next(self, kind: str, times: int = 1, **more: Any) -> None:
        self.faults.extend(Fault(kind, **more) for _ in range(times))

    def forget(self) -> None:
        """Be as new, for the next test."""
        fresh = ModelServer(url=self.url, connections=self.connections)
        self.__dict__.update(fresh.__dict__)

    def prompt(self, number: int = -1) -> str:
        """All texts that a request showed to the model, in one."""
        return json.dumps(self.received[number].body, ensure_ascii=False)


def _usage_openai() -> dict[str, int]:
    return {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}


def openai_whole(server: ModelServer, body: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(server.reply)}
    if server.tool_calls:
        call = {"name": "look", "arguments": '{"at": "sea"}'}
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
        }
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    said: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body.get("model"),
        "choices": [choice],
        EXTRA: [1, 2.50, "\u00e9"],
    }
    return said | ({"usage": _usage_openai()} if server.counts_tokens else {})


def openai_events(server: ModelServer, body: dict[str, Any]) -> Iterator[bytes]:
    def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        facts = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1}
        event = facts | {"model": body.get("model"), "choices": choices, EXTRA: 2.50} | more
        return b"data: " + json.dumps(event).encode() + b"\n\n"

    yield chunk({"role": "assistant", "content": ""})
    if server.tool_calls:
        call = {"name": "look", "arguments": '{"at": "sea"}'}
        yield chunk(
            {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": call}]}
        )
        yield chunk({}, "tool_calls")
    else:
        for piece in server.reply:
            yield chunk({"content": piece})
        yield chunk({}, "stop")
    if server.counts_tokens and (body.get("stream_options") or {}).get("include_usage"):
        yield chunk({}, usage=_usage_openai(), choices=[])
    yield b"data: [DONE]\n\n"


def anthropic_whole(server: ModelServer, body: dict[str, Any]) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": "".join(server.reply)}]
    if server.tool_calls:
        content = [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "sea"}}]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "content": content,
        "stop_reason": "tool_use" if server.tool_calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 20, "output_tokens": 5},
        EXTRA: 2.50,
    }


def anthropic_events(server: ModelServer, body: dict[str, Any]) -> Iterator[bytes]:
    def event(kind: str, **data: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind} | data)}\n\n".encode()

    start = anthropic_whole(server, body) | {"content": [], "stop_reason": None}
    yield event(
        "message_start", message=start | {"usage": {"input_tokens": 20, "output_tokens": 1}}
    )
    block: dict[str, Any] = {"type": "text", "text": ""}
    deltas = [{"type": "text_delta", "text": piece} for piece in server.reply]
    if server.tool_calls:
        block = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": '{"at": "sea"}'}]
    yield event("content_block_start", index=0, content_block=block)
    yield event("ping")
    for delta in deltas:
        yield event("content_block_delta", index=0, delta=delta)
    yield event("content_block_stop", index=0)
    reason = {"stop_reason": "tool_use" if server.tool_calls else "end_turn", "stop_sequence": None}
    yield event("message_delta", delta=reason, usage={"output_tokens": 5})
    yield event("message_stop")


Whole = Callable[[ModelServer, dict[str, Any]], dict[str, Any]]
Events = Callable[[ModelServer, dict[str, Any]], Iterator[bytes]]
SPOKEN: dict[str, tuple[Whole, Events]] = {
    "/v1/chat/completions": (openai_whole, openai_events),
    "/v1/messages": (anthropic_whole, anthropic_events),
}


class _Conversation:
    """One kept-alive connection."""

    def __init__(
        self, server: ModelServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server, self._reader, self._writer = server, reader, writer

    async def serve(self) -> None:
        while request := await self._read():
            self._server.received.append(request)
            answering = asyncio.create_task(self._answer(request))
            leaving = asyncio.create_task(self._reader.read(1))
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                answering.cancel()
                self._server.gone.release()
                return
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            if not await answering:
                return

    async def _read(self) -> Received | None:
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        first, *lines = head.rstrip("\r\n").split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        headers = {name.lower(): value.strip() for name, value in pairs}
        raw = await self._reader.readexactly(int(headers.get("content-length", 0)))
        path = first.split(" ")[1].partition("?")[0]
        return Received(path, headers, json.loads(raw or b"{}"), raw)

    async def _answer(self, request: Received) -> bool:
        """Return whether the connection may be used again."""
        fault = self._server.faults.popleft() if self._server.faults else Fault("none")
        if fault.kind == "hang":
            await asyncio.Event().wait()
        if fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        if fault.kind == "close":
            return False
        if fault.kind == "status":
            return await self._whole(fault.body, fault.status, fault.headers)
        if request.path == "/v1/models":
            return await self._whole(json.dumps({"object": "list", "data": MODELS}).encode())
        whole, events = SPOKEN[request.path]
        if not request.body.get("stream"):
            return await self._whole(json.dumps(whole(self._server, request.body)).encode())
        return await self._events(list(events(self._server, request.body)), fault)

    async def _whole(
        self, body: bytes, status: int = 200, headers: dict[str, str] | None = None
    ) -> bool:
        self._server.sent.append(body)
        kind = {"content-type": "application/json", "content-length": str(len(body))}
        lines = "".join(f"{n}: {v}\r\n" for n, v in (kind | (headers or {})).items())
        self._writer.write(f"HTTP/1.1 {status} Told\r\n{lines}\r\n".encode() + body)
        await self._writer.drain()
        return True

    async def _events(self, events: list[bytes], fault: Fault) -> bool:
        self._writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        await self._writer.drain()
        sent = b""
        for number, event in enumerate(events):
            if fault.kind != "none" and fault.kind != "slow" and number == fault.after:
                if fault.kind == "cut":
                    self._writer.transport.abort()
                    return False
                if fault.kind == "stall":
                    await asyncio.Event().wait()
                event = {"cut in an event": event[:20], "malformed": b"data: {not json\n\n"}[
                    fault.kind
                ]
            sent += event
            self._writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await self._writer.drain()
            if fault.kind == "cut in an event" and number == fault.after:
                await asyncio.sleep(0.05)
                self._writer.transport.abort()
                return False
            if self._server.pause:
                await asyncio.sleep(self._server.pause)
        self._server.sent.append(sent)
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        return True


@asynccontextmanager
async def model_server() -> AsyncIterator[ModelServer]:
    """Serve on a free port of this machine for as long as the block runs."""
    server = ModelServer()
    conversations: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        conversations.add(task)
        server.connections += 1
        try:
            await _Conversation(server, reader, writer).serve()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client gave up, or the test is over
        finally:
            conversations.discard(task)
            writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for task in list(conversations):
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)
