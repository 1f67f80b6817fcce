"""Four fake chat sites over TLS, which answer in the wire formats of the real ones."""

import asyncio
import datetime
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote
from uuid import uuid4

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.conftest import free_port
from tests.extension import wire

HERE = Path(__file__).parent
EDITORS = HERE.parents[1] / "extension" / "dist" / "tests" / "editors.js"
HOSTS = {
    "chatgpt": "chatgpt.com",
    "claude": "claude.ai",
    "gemini": "gemini.google.com",
    "grok": "grok.com",
}
# Not one of the four: the extension has to be allowed there.
X = "x.com"
STRICT = (
    "default-src 'none'; script-src 'nonce-only'; frame-ancestors 'none'; "
    "connect-src 'self' wss://ws.chatgpt.com; "
)
# TipTap and Quill make markup of text, which this forbids; ProseMirror does not.
STRICTER = STRICT + "require-trusted-types-for 'script'; trusted-types 'none'"


@dataclass
class Plan:
    """How the site answers a prompt. `gate` holds the second half of the stream back; `chunks`
    is into about how many pieces the stream is cut."""

    answer: str | None = None
    gate: asyncio.Event | None = None
    breaks_off: bool = False
    handoff: str | None = None
    status: int = 200
    # ChatGPT stops after so many characters, until it is told to go on.
    longest: int | None = None
    chunks: int = 16


@dataclass
class Turn:
    site: str
    chat: str
    asked: str
    answered: str
    prompt: str
    answer: str
    body: Any = None


@dataclass
class Sites:
    """What the fake sites were asked, and how they answer; `chance` decides where they cut."""

    chance: random.Random = field(default_factory=lambda: random.Random(7))
    plans: dict[str, Plan] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    sockets: list[WebSocket] = field(default_factory=list)
    port: int = 0
    sent: int = 0
    # Answers that somebody is still listening to.
    under_way: int = 0

    def clear(self) -> None:
        self.plans.clear()
        self.turns.clear()

    def plan(self, prompt: str, plan: Plan) -> Plan:
        self.plans[prompt] = plan
        return plan

    def record(self, site: str, chat: str, asked: str, prompt: str, body: Any) -> Turn:
        plan = self.plans.get(prompt, Plan())
        answer = f"Answer to {prompt} 🙂" if plan.answer is None else plan.answer
        turn = Turn(site, chat, asked, str(uuid4()), prompt, answer, body)
        self.turns.append(turn)
        return turn

    def pieces(self, text: str) -> list[str]:
        """Cut a text between any two characters."""
        most = max(1, len(text) // 20)
        pieces, start = [], 0
        while start < len(text):
            length = self.chance.randint(1, most)
            pieces.append(text[start : start + length])
            start += length
        return pieces or [""]

    def socket_frames(self, turn: Turn) -> list[str]:
        """The answer to a turn of ChatGPT's as it comes by WebSocket."""
        pieces = self.pieces(turn.answer)
        stream = wire.chatgpt(turn.chat, turn.asked, turn.answered, pieces)
        return wire.chatgpt_socket(turn.chat, stream)

    def rest_of(self, answered: str) -> Response:
        turn = next(t for t in self.turns if t.answered == answered)
        left = turn.answer[self.plans[turn.prompt].longest :]
        stream = wire.chatgpt(turn.chat, turn.asked, f"{answered}-2", self.pieces(left))
        return self.stream(turn, stream)

    def stream(self, turn: Turn, text: str) -> Response:
        plan = self.plans.get(turn.prompt, Plan())
        if plan.status != 200:
            return JSONResponse({"detail": "refused"}, plan.status)
        headers = {
            "x-chat": turn.chat,
            "x-answer-id": turn.answered,
            "x-plain": quote(turn.answer[:2_000]),
        }
        body = self._body(text.encode(), plan)
        return StreamingResponse(body, media_type="text/event-stream", headers=headers)

    async def _body(self, raw: bytes, plan: Plan) -> AsyncIterator[bytes]:
        self.under_way += 1
        try:
            async for piece in self._pieces(raw, plan):
                yield piece
        finally:
            self.under_way -= 1

    async def _pieces(self, raw: bytes, plan: Plan) -> AsyncIterator[bytes]:
        half = len(raw) // 2
        self.sent = 0
        for piece in self._cut(raw[:half], plan.chunks // 2):
            self.sent += 1
            yield piece
            await asyncio.sleep(0 if plan.chunks < 100 else 0.0005)
        if plan.gate:
            await plan.gate.wait()
        if plan.breaks_off:
            raise BrokenOff
        for piece in self._cut(raw[half:], plan.chunks // 2):
            self.sent += 1
            yield piece
            await asyncio.sleep(0 if plan.chunks < 100 else 0.0005)

    def _cut(self, raw: bytes, count: int) -> Iterator[bytes]:
        """Cut at any byte, also within a character."""
        most = max(2, 2 * len(raw) // count)
        start = 0
        while start < len(raw):
            length = self.chance.randint(1, most)
            yield raw[start : start + length]
            start += length


class BrokenOff(Exception):
    """The connection ends in the middle of an answer."""


def make_app(sites: Sites) -> Starlette:
    async def page(request: Request) -> Response:
        html = (HERE / "site.html").read_text()
        policy = STRICTER if request.headers["host"] == HOSTS["chatgpt"] else STRICT
        return HTMLResponse(html, headers={"content-security-policy": policy})

    async def script(request: Request) -> Response:
        path = EDITORS if request.url.path == "/editors.js" else HERE / "site.js"
        return PlainTextResponse(path.read_text(), media_type="text/javascript")

    async def chatgpt(request: Request) -> Response:
        body = await request.json()
        chat = body.get("conversation_id") or f"c-{uuid4()}"
        if body["action"] == "continue":
            return sites.rest_of(body["parent_message_id"])
        if body["action"] == "variant":
            first = next(t for t in sites.turns if t.asked == body["parent_message_id"])
            asked, prompt = first.asked, first.prompt
        else:
            [message] = body["messages"]
            asked, prompt = message["id"], "".join(message["content"]["parts"])
        turn = sites.record("chatgpt", chat, asked, prompt, body)
        plan = sites.plans.get(prompt, Plan())
        if plan.handoff:
            return sites.stream(turn, wire.chatgpt_handoff(chat, asked))
        if plan.longest is not None:
            text = turn.answer[: plan.longest]
            return sites.stream(turn, wire.chatgpt_cut_off(chat, asked, turn.answered, text))
        return sites.stream(
            turn, wire.chatgpt(chat, asked, turn.answered, sites.pieces(turn.answer))
        )

    async def resume(request: Request) -> Response:
        body = await request.json()
        turn = [t for t in sites.turns if t.chat == body["conversation_id"]][-1]
        text = wire.chatgpt(turn.chat, turn.asked, turn.answered, sites.pieces(turn.answer))
        return sites.stream(turn, text)

    async def history(request: Request) -> Response:
        chat = request.path_params["chat"]
        turns = [t for t in sites.turns if t.chat == chat]
        listed = [(t.asked, t.prompt, t.answered, t.answer) for t in turns]
        return JSONResponse(wire.chatgpt_history(chat, listed))

    async def claude(request: Request) -> Response:
        body = await request.json()
        ids = body["turn_message_uuids"]
        prompt, asked = body["prompt"], ids.get("human_message_uuid")
        if request.url.path.endswith("/retry_completion"):
            asked = body["parent_message_uuid"]
            prompt = next(t.prompt for t in sites.turns if t.asked == asked)
        turn = sites.record("claude", request.path_params["chat"], asked, prompt, body)
        turn.answered = ids["assistant_message_uuid"]
        pieces = sites.pieces(turn.answer)
        return sites.stream(turn, wire.claude(turn.chat, turn.asked, turn.answered, pieces))

    async def gemini(request: Request) -> Response:
        form = parse_qs((await request.body()).decode())
        inner = json.loads(json.loads(form["f.req"][0])[1])
        chat = (inner[2] or [None])[0] or f"c_{uuid4().hex[:16]}"
        turn = sites.record("gemini", chat, inner[59], inner[0][0], inner)
        pieces = sites.pieces(turn.answer)
        return sites.stream(turn, wire.gemini(turn.chat, "r_1", turn.answered, pieces))

    async def grok(request: Request) -> Response:
        body = await request.json()
        chat = request.path_params.get("chat")
        turn = sites.record("grok", chat or str(uuid4()), str(uuid4()), body["message"], body)
        pieces = sites.pieces(turn.answer)
        text = wire.grok(turn.chat, turn.asked, turn.answered, pieces, first=chat is None)
        return sites.stream(turn, text)

    async def xgrok(request: Request) -> Response:
        body = await request.json()
        [said] = body["responses"]
        turn = sites.record("xgrok", "20", str(uuid4()), said["message"], body)
        pieces = sites.pieces(turn.answer)
        return sites.stream(turn, wire.xgrok(turn.chat, turn.asked, turn.answered, pieces))

    async def reconnect(request: Request) -> Response:
        turn = next(t for t in sites.turns if t.answered == request.path_params["answer"])
        pieces = sites.pieces(turn.answer)
        text = wire.grok(turn.chat, turn.asked, turn.answered, pieces, first=False)
        return sites.stream(turn, text)

    async def moved(request: Request) -> Response:
        """An address that nobody knows yet, which answers in a way that nobody knows yet."""
        body = await request.json()
        turn = sites.record("chatgpt", "c-moved", str(uuid4()), body["prompt"], body)
        return sites.stream(turn, wire.sse({"new": turn.answer}))

    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        sites.sockets.append(socket)
        async for _ in socket.iter_text():
            pass

    api, claude_api = "/backend-api", "/api/organizations/{org}/chat_conversations/{chat}"
    service = "/_/BardChatUi/data/assistant.lamda.BardFrontendService/StreamGenerate"
    chats = "/rest/app-chat/conversations"
    return Starlette(
        routes=[
            Route("/site.js", script),
            Route("/editors.js", script),
            Route(f"{api}/f/conversation", chatgpt, methods=["POST"]),
            Route(f"{api}/f/conversation/resume", resume, methods=["POST"]),
            Route(f"{api}/conversation/{{chat}}", history),
            Route(f"{api}/v9/turns", moved, methods=["POST"]),
            Route(f"{claude_api}/completion", claude, methods=["POST"]),
            Route(f"{claude_api}/retry_completion", claude, methods=["POST"]),
            Route(service, gemini, methods=["POST"]),
            Route("/2/grok/add_response.json", xgrok, methods=["POST"]),
            Route(f"{chats}/reconnect-response-v2/{{answer}}", reconnect),
            Route(f"{chats}/new", grok, methods=["POST"]),
            Route(f"{chats}/{{chat}}/responses", grok, methods=["POST"]),
            WebSocketRoute("/socket", socket),
            Route("/{path:path}", page),
        ]
    )


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for nobody in particular; the browser is told not to mind."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fake sites")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "cert.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    traditional = serialization.PrivateFormat.TraditionalOpenSSL
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, traditional, plain))
    return pem, secret


@asynccontextmanager
async def serve(sites: Sites, folder: Path) -> AsyncIterator[Sites]:
    pem, secret = certificate(folder)
    sites.port = free_port()
    config = uvicorn.Config(
        make_app(sites),
        port=sites.port,
        log_level="critical",
        lifespan="off",
        ssl_certfile=pem,
        ssl_keyfile=secret,
        ws="websockets-sansio",
    )
    server = uvicorn.Server(config)
    # Its signal handlers would take Ctrl-C away from the tests.
    task = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn sets no event
        await asyncio.sleep(0.01)
    yield sites
    server.should_exit = server.force_exit = True
    await task
