"""Embeddings from OpenAI, or from any server that speaks its protocol."""

import asyncio
import base64
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from core.config import SettingsError
from core.embeddings import (
    CHUNK_CHARACTERS,
    EmbedderUnavailable,
    Span,
    TextRefused,
    Vectors,
    split_text,
    unit_length,
)

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

# https://platform.openai.com/docs/guides/embeddings
DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}

# The provider's tokenizer is not here: about four Latin characters make a token, so this is 200
# tokens; of other scripts each character is counted as one whole token.
CHUNK_COST = 800
LATIN_COST, OTHER_COST = 1, 4
FIRST_OTHER = "\u0250"

REQUESTS_AT_ONCE = 2
# Of queries a request leaves no sooner than so many seconds after the last one, and carries all
# that have come by then: it costs half a millisecond of CPU, however few texts are in it. Who asks
# alone never waits. Nor does anybody join where so many are under way.
SHARING_SECONDS = 0.01
QUERY_REQUESTS_AT_ONCE = 4
REFUSALS = {400, 413, 422}
HARMLESS = "ok"


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for one attempt, seconds for all together, and how many attempts may follow."""

    attempt: float
    total: float
    retries: int


BACKGROUND = Patience(attempt=30, total=120, retries=3)
URGENT = Patience(attempt=5, total=5, retries=1)


class OpenAIEmbedder:
    def __init__(
        self,
        model: str,
        api_key: str,
        base_url: str,
        batch: int,
        background: Patience = BACKGROUND,
        urgent: Patience = URGENT,
    ) -> None:
        """Take a model as `name`, or as `name@dimensions` where the name is not OpenAI's."""
        self._model, self.dimensions = _parse_model(model)
        # With the size where it is a choice: vectors of two sizes never mix.
        self.name = f"openai:{model}"
        # A server without keys still gets one: the SDK insists.
        self._api_key, self._base_url, self._batch = api_key or "none", base_url, batch
        self._patience = {False: background, True: urgent}
        self._slots = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._queries = _Shared(lambda texts: self._embed(texts, True), batch)
        self._opening = asyncio.Lock()
        self._client: AsyncOpenAI | None = None
        self._endpoints: dict[Patience, AsyncOpenAI] = {}

    def split(self, text: str, most: int) -> list[Span]:
        return split_text(text, most, _fitting)

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        if not urgent or len(texts) > 1:
            return await self._embed(texts, urgent)
        try:
            async with asyncio.timeout(self._patience[urgent].total):
                return await self._queries.embed(texts[0])
        except TimeoutError as exc:
            raise EmbedderUnavailable("The embedding provider cannot be reached") from exc

    async def aclose(self) -> None:
        await self._queries.aclose()
        if self._client:
            await self._client.close()

    async def _embed(self, texts: Sequence[str], urgent: bool) -> Vectors:
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        refused: list[int] = []
        for start in range(0, len(texts), self._batch):
            positions = list(range(start, min(start + self._batch, len(texts))))
            await self._fill(vectors, texts, positions, refused, urgent)
        if refused:
            raise TextRefused(refused)
        return unit_length(vectors)

    async def _fill(
        self,
        vectors: Vectors,
        texts: Sequence[str],
        positions: list[int],
        refused: list[int],
        urgent: bool,
    ) -> None:
        """Halve a refused batch until only the texts that are to blame are left."""
        try:
            vectors[positions] = await self._request([texts[i] for i in positions], urgent)
        except TextRefused:
            if len(positions) == 1:
                if not refused:
                    await self._check_not_all_is_refused(urgent)
                refused.extend(positions)
                return
            middle = len(positions) // 2
            await self._fill(vectors, texts, positions[:middle], refused, urgent)
            await self._fill(vectors, texts, positions[middle:], refused, urgent)

    async def _check_not_all_is_refused(self, urgent: bool) -> None:
        """Some servers answer 400 to a wrong key: no text must be given up for that."""
        try:
            await self._request([HARMLESS], urgent)
        except TextRefused as exc:
            raise EmbedderUnavailable("The embedding provider refuses every text") from exc

    async def _request(self, texts: list[str], urgent: bool) -> Vectors:
        if urgent:
            return await self._send(texts, self._patience[urgent])
        async with self._slots:
            return await self._send(texts, self._patience[urgent])

    async def _send(self, texts: list[str], patience: Patience) -> Vectors:
        endpoint = await self._endpoint(patience)
        import httpx2
        import openai

        # Asked for and read raw: `embeddings.create` takes a quarter more time. Base64 is a quarter
        # of the size, but some servers send floats anyway.
        body = {
            "model": self._model,
            "input": [text[:CHUNK_CHARACTERS] for text in texts],
            "encoding_format": "base64",
        }
        try:
            async with asyncio.timeout(patience.total):
                answer = await endpoint.post("/embeddings", cast_to=httpx2.Response, body=body)
        except openai.APIStatusError as exc:
            if exc.status_code in REFUSALS:
                raise TextRefused(range(len(texts))) from exc
            message = f"The embedding provider answered {exc.status_code}"
            raise EmbedderUnavailable(message, _retry_after(exc)) from exc
        except (openai.APIError, TimeoutError) as exc:
            raise EmbedderUnavailable("The embedding provider cannot be reached") from exc
        return _read_vectors(answer.content, (len(texts), self.dimensions))

    async def _endpoint(self, patience: Patience) -> "AsyncOpenAI":
        """The one client with these times; a copy of it is not free."""
        if patience not in self._endpoints:
            client = await self._open()
            self._endpoints[patience] = client.with_options(
                timeout=patience.attempt, max_retries=patience.retries
            )
        return self._endpoints[patience]

    async def _open(self) -> "AsyncOpenAI":
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(self._import_and_make_client)
            return self._client

    def _import_and_make_client(self) -> "AsyncOpenAI":
        from openai import AsyncOpenAI, DefaultAioHttpClient

        # With the other transport a request takes half as much again of this process.
        return AsyncOpenAI(
            api_key=self._api_key, base_url=self._base_url, http_client=DefaultAioHttpClient()
        )


class _Request:
    """Texts that go together, and who waits for the vector of each."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.waiting: list[asyncio.Future[Vectors]] = []

    def settle(self, vectors: Vectors) -> None:
        for place, waiter in enumerate(self.waiting):
            if not waiter.done():
                waiter.set_result(vectors[place : place + 1])

    def fail(self, error: BaseException) -> None:
        """Tell whoever still waits."""
        for waiter in self.waiting:
            if not waiter.done():
                waiter.set_exception(error)


class _Shared:
    """Texts of different callers in one request, where they come close upon one another."""

    def __init__(self, embed: Callable[[list[str]], Awaitable[Vectors]], most: int) -> None:
        self._embed, self._most = embed, most
        self._free = asyncio.Semaphore(QUERY_REQUESTS_AT_ONCE)
        self._next = _Request()
        self._sending: set[asyncio.Task[None]] = set()
        self._last_left = -math.inf

    async def embed(self, text: str) -> Vectors:
        """Return one row. What befalls another's text is not this one's."""
        if self._is_free():
            return await self._send(_Request(text))
        place, answer = self._join(text)
        try:
            return await answer
        except TextRefused as refused:
            if place in refused.positions:
                raise TextRefused([0]) from refused
            return await self._embed([text])

    def _is_free(self) -> bool:
        """Say whether a request may leave at once, and nobody waits for the next one."""
        return self._seconds_to_wait() <= 0 and not self._next.texts and not self._free.locked()

    def _seconds_to_wait(self) -> float:
        return self._last_left + SHARING_SECONDS - asyncio.get_running_loop().time()

    def _join(self, text: str) -> "tuple[int, asyncio.Future[Vectors]]":
        request, answer = self._next, asyncio.get_running_loop().create_future()
        request.texts.append(text)
        request.waiting.append(answer)
        if len(request.texts) == 1:
            sending = asyncio.create_task(self._send_for_all(request))
            self._sending.add(sending)
            sending.add_done_callback(lambda task: self._ended(request, task))
        if len(request.texts) == self._most:
            self._next = _Request()
        return len(request.texts) - 1, answer

    async def aclose(self) -> None:
        for task in tuple(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _send_for_all(self, request: _Request) -> None:
        request.settle(await self._send(request))

    def _ended(self, request: _Request, sending: asyncio.Task[None]) -> None:
        self._sending.discard(sending)
        error = None if sending.cancelled() else sending.exception()
        request.fail(error or EmbedderUnavailable("The service ends"))

    async def _send(self, request: _Request) -> Vectors:
        if (wait := self._seconds_to_wait()) > 0:
            await asyncio.sleep(wait)
        async with self._free:
            self._last_left = asyncio.get_running_loop().time()
            if self._next is request:
                self._next = _Request()
            return await self._embed(request.texts)


def _parse_model(model: str) -> tuple[str, int]:
    name, _, size = model.partition("@")
    if size.isdecimal() and int(size):
        return name, int(size)
    if size or name not in DIMENSIONS:
        raise SettingsError(
            f"EMBEDDER names a model of unknown size: write openai:{name}@DIMENSIONS, such as @768"
        )
    return name, DIMENSIONS[name]


def _fitting(window: str) -> int:
    costs = accumulate(
        LATIN_COST if character < FIRST_OTHER else OTHER_COST for character in window
    )
    return sum(1 for cost in costs if cost <= CHUNK_COST)


def _retry_after(error: "APIStatusError") -> float | None:
    try:
        return float(error.response.headers["retry-after"])
    except (KeyError, ValueError):
        return None


def _read_vectors(body: bytes, shape: tuple[int, int]) -> Vectors:
    try:
        # Some servers leave a zero out.
        rows = sorted(orjson.loads(body)["data"], key=lambda row: row.get("index", 0))
        vectors = np.array([_read_vector(row["embedding"]) for row in rows], np.float32)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise EmbedderUnavailable("The embedding provider did not answer with vectors") from exc
    if vectors.shape != shape or not np.isfinite(vectors).all():
        raise EmbedderUnavailable(
            f"The embedding provider answered {vectors.shape} numbers where {shape} are expected"
        )
    return vectors


def _read_vector(embedding: Any) -> Any:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), "<f4")
    return embedding
