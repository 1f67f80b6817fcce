"""What a provider's wire format must be able to say; one module beside this one for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

MOST_KEPT = 1_000_000  # characters of a reply; what is saved of it ends there


class Sdk(NamedTuple):
    """A client of the official SDK, and what it raises."""

    client: Any
    status_error: type[Exception]
    connection_error: type[Exception]


@dataclass(slots=True)
class Said:
    """What a reply has said so far. Tokens are 0 where the provider does not count them."""

    pieces: list[str] = field(default_factory=list)
    characters: int = 0
    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    finished: bool = False
    failed: bool = False

    def add(self, text: object) -> str:
        if not isinstance(text, str) or not text:
            return ""
        if self.characters < MOST_KEPT:
            self.pieces.append(text[: MOST_KEPT - self.characters])
        self.characters += len(text)
        return text

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def is_cut(self) -> bool:
        return self.characters > MOST_KEPT


class Format(Protocol):
    path: str
    models_path: str

    def connect(self, base_url: str, api_key: str) -> Sdk:
        """Import the SDK, which takes a second, and make a client that never tries again."""

    def request(
        self, model: str, messages: Sequence[Mapping[str, str]], most_tokens: int | None
    ) -> dict[str, Any]: ...

    def streamed(self, body: dict[str, Any]) -> dict[str, Any]:
        """Ask for a stream that counts its tokens."""

    def read_event(self, event: Any, said: Said) -> str:
        """Return the text that an event of a stream adds."""

    def read_whole(self, document: Any, said: Said) -> str: ...

    def failure(self, status: int, message: str, code: str) -> dict[str, Any]:
        """Say an error of ours as the provider would."""

    def failure_event(self, message: str, code: str) -> bytes:
        """Say within a stream that it ends here."""


def at(document: Any, *path: str | int) -> Any:
    """Follow a path into a document of somebody else's; None where it does not lead on."""
    for step in path:
        if isinstance(step, str):
            document = document.get(step) if isinstance(document, dict) else None
        else:
            is_there = isinstance(document, list) and len(document) > step
            document = document[step] if is_there else None
    return document


def count(value: Any) -> int:
    """A number of tokens, which not every server writes as one."""
    return value if isinstance(value, int) and 0 < value < 10**9 else 0
