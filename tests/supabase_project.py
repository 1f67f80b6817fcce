"""A Supabase project as a server of ours sees it: its keys, and its users for the secret key."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from core.signing_keys import LocalKeys

SECRET = "sb_secret_for_the_operator_alone"
USERS = "/auth/v1/admin/users"
NOBODY = {"code": "user_not_found", "message": "User not found"}


class Project:
    """`away` makes the directory fail; `forged_404` makes it answer as a wrong address does."""

    def __init__(self, keys: LocalKeys) -> None:
        self.keys = keys
        self.url = ""
        self.users: set[UUID] = set()
        self.emails: dict[UUID, str] = {}
        self.tiers: dict[UUID, str] = {}
        self.away = self.forged_404 = False
        self.asked: list[str] = []

    def answer(
        self, method: str, address: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, object]:
        path, _, query = address.partition("?")
        if path == "/auth/v1/.well-known/jwks.json":
            return 200, self.keys.published()
        if not path.startswith(USERS) or self.forged_404:
            return 404, {"message": "no Route matched with those values"}
        self.asked.append(f"{method} {path}")
        if self.away:
            return 503, {"message": "upstream"}
        if headers.get("apikey") != SECRET or headers.get("authorization") != f"Bearer {SECRET}":
            return 401, {"code": "no_authorization", "message": "secret key required"}
        if path == USERS:
            page, size = (int(part.split("=")[1]) for part in query.split("&"))
            listed = sorted(self.users)[(page - 1) * size : page * size]
            return 200, {"users": [self.user(one) for one in listed], "aud": "authenticated"}
        user_id = UUID(path.removeprefix(USERS + "/"))
        if user_id not in self.users:
            return 404, NOBODY
        if method == "DELETE":
            self.users.discard(user_id)
        if method == "PUT":
            self.tiers[user_id] = json.loads(body)["app_metadata"]["tier"]
        return 200, self.user(user_id)

    def user(self, user_id: UUID) -> dict[str, object]:
        return {
            "id": str(user_id),
            "aud": "authenticated",
            "email": self.emails.get(user_id),
            "app_metadata": {"provider": "email"},
            "user_metadata": {"full_name": f"Name of {self.emails.get(user_id)}"},
            "created_at": "2026-01-01T00:00:00Z",
        }


@asynccontextmanager
async def project(keys: LocalKeys) -> AsyncIterator[Project]:
    """Serve a project and yield it."""
    served = Project(keys)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, address, _ = head.split(" ", 2)
        pairs = (line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        headers = {name.lower(): value for name, value in pairs}
        sent = await reader.readexactly(int(headers.get("content-length", 0)))
        status, found = served.answer(method, address, headers, sent)
        body = json.dumps(found).encode()
        writer.write(
            b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"X-Supabase-Api-Version: 2024-01-01\r\nContent-Length: %d\r\n\r\n%s"
            % (status, len(body), body)
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield served
