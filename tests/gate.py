"""A way to the database that a test can close, as when the machine it runs on is gone."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

SOCKET = ".s.PGSQL.5432"


@asynccontextmanager
async def open_gate(database_url: str) -> AsyncIterator["Gate"]:
    with tempfile.TemporaryDirectory(prefix="gate-") as folder:
        gate = Gate(database_url, Path(folder))
        await gate.open()
        yield gate
        gate.close()


class Gate:
    def __init__(self, database_url: str, folder: Path) -> None:
        parts = urlsplit(database_url)
        [real_folder] = parse_qs(parts.query)["host"]
        self.url = f"postgresql://postgres@{parts.path}?host={folder}&port=5432"
        self._far = Path(real_folder) / SOCKET
        self._near = folder / SOCKET
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._near)

    def close(self) -> None:
        self._server.close()
        self._near.unlink(missing_ok=True)
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._far)
        self._writers += [writer, far_writer]
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(65_536):
            writer.write(part)
            await writer.drain()
    writer.close()
