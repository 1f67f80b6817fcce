"""Types of input that several routes share, and the text of a keyset cursor."""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header
from pydantic import AfterValidator, BeforeValidator, Strict, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from core.capture import MOST_METADATA_BYTES, MOST_METADATA_LEVELS, MOST_SHORT, MOST_TEXT_BYTES
from core.errors import InvalidInput
from storage.memory_store import Filters

MIB = 1024 * 1024
# JSON may need three bytes for one of text: an emoji's 4 bytes are 12 as escapes.
MOST_BODY_BYTES = 4 * MIB


def storable(text: str) -> str:
    """Refuse what Postgres cannot keep: NUL, and halves of a surrogate pair."""
    _size_of(text)
    if "\0" in text:
        raise PydanticCustomError("nul", "must not contain the character NUL")
    return text


def _bounded(text: str) -> str:
    if _size_of(text) > MOST_TEXT_BYTES:
        raise PydanticCustomError("too_large", "must be at most 1 MiB of UTF-8")
    return storable(text)


def _size_of(text: str) -> int:
    try:
        return len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise PydanticCustomError("surrogate", "must be well-formed Unicode") from error


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be empty")
    return text


_DATED = re.compile(r"\d{4}-\d\d-\d\d")


def _text(value: object) -> object:
    """Refuse numbers: nobody could tell seconds from milliseconds."""
    if not isinstance(value, str) or not _DATED.match(value):
        raise PydanticCustomError("time", "must be a time as text, like 2025-05-01T12:00:00Z")
    return value


def _sensible_time(time: datetime) -> datetime:
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    if not 1970 <= time.year <= 2200:
        raise PydanticCustomError("time", "must lie between 1970 and 2200")
    return time


def _small_object(value: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, RecursionError) as error:
        raise PydanticCustomError("json", "must be plain JSON of well-formed text") from error
    if size > MOST_METADATA_BYTES:
        raise PydanticCustomError("too_large", "must be at most 16 kB as JSON")
    for text in _texts(value, MOST_METADATA_LEVELS):
        storable(text)
    return value


def _texts(value: Any, levels: int) -> Iterator[str]:
    if levels == 0:
        raise PydanticCustomError("deep", "must be at most 32 levels deep")
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner, levels - 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, levels - 1)


def json_body(schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    """Describe the body of a route that reads it itself, for OpenAPI."""
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": required, "content": content}}


# In a body, as its document says: "8" and true are no numbers, 0 and "no" are no truth values.
Number = Annotated[int, Strict()]
Truth = Annotated[bool, Strict()]
LongText = Annotated[str, AfterValidator(_bounded)]
Prompt = Annotated[
    LongText, AfterValidator(_not_blank), WithJsonSchema({"type": "string", "minLength": 1})
]
ShortText = Annotated[
    str, StringConstraints(min_length=1, max_length=MOST_SHORT), AfterValidator(storable)
]
# A site without a title yields an empty one, which is no reason to lose a turn.
OrUnknown = BeforeValidator(lambda value: None if value == "" else value)
MaybeText = Annotated[
    ShortText | None,
    OrUnknown,
    WithJsonSchema({"anyOf": [{"type": "string", "maxLength": 500}, {"type": "null"}]}),
]
Question = Annotated[
    str,
    StringConstraints(min_length=1, max_length=20_000),
    AfterValidator(storable),
    AfterValidator(_not_blank),
]
Url = Annotated[str, StringConstraints(max_length=2_000), AfterValidator(storable)]
Provider = Annotated[
    str,
    StringConstraints(
        to_lower=True, strip_whitespace=True, min_length=1, max_length=50, pattern=r"^[\w.:/ -]+$"
    ),
    # Without the pattern: letters of all scripts are `\w` here, and in JSON Schema only ours.
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 50}),
]
# A header: it is used for this one call, and neither kept nor logged.
ProviderKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=512,
        pattern=r"^[\x21-\x7e]+$",
        description="A key of your own for the model provider; it is used for this request alone.",
    ),
]
Time = Annotated[datetime, BeforeValidator(_text), AfterValidator(_sensible_time)]
Metadata = Annotated[dict[str, Any], AfterValidator(_small_object)]


def make_filters(
    provider: str | None,
    conversation_id: str | None,
    after: datetime | None,
    before: datetime | None,
) -> Filters:
    """Raises InvalidInput where the span of time is empty by mistake."""
    if after and before and after > before:
        fields = [{"path": "after", "message": "must not be later than before"}]
        raise InvalidInput("after is later than before.", fields=fields)
    return Filters(provider, conversation_id, after, before)


def text_cursor(*parts: object) -> str:
    """Make an opaque cursor of texts."""
    plain = json.dumps([str(part) for part in parts])
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def texts_of(cursor: str, count: int) -> list[str]:
    """Read a cursor back; raises InvalidInput when it is not one of ours."""
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        parts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if (
            not isinstance(parts, list)
            or len(parts) != count
            or not all(isinstance(part, str) and storable(part) == part for part in parts)
        ):
            raise ValueError
    except (ValueError, binascii.Error, PydanticCustomError, RecursionError) as error:
        raise bad_cursor() from error
    return parts


def cursor_of(time: datetime, *parts: object) -> str:
    """Make the cursor of a list by time, with the texts that break its ties."""
    return text_cursor(time.isoformat(), *parts)


def parts_of(cursor: str, count: int) -> tuple[datetime, list[str]]:
    """Read the cursor of a list by time, of `count` parts in all."""
    time, *parts = texts_of(cursor, count)
    try:
        return _sensible_time(datetime.fromisoformat(time)), parts
    except (ValueError, PydanticCustomError) as error:
        raise bad_cursor() from error


def memory_cursor(cursor: str | None) -> tuple[datetime, UUID] | None:
    """Read the cursor of a list of memories: a time and an id."""
    if cursor is None:
        return None
    at, (text,) = parts_of(cursor, 2)
    try:
        return at, UUID(text)
    except ValueError as error:
        raise bad_cursor() from error


def bad_cursor() -> InvalidInput:
    fields = [{"path": "cursor", "message": "is not a cursor of this server"}]
    return InvalidInput("The cursor is not valid.", fields=fields)
