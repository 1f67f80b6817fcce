"""JSON of any size, item by item, and what a file is by its first bytes."""

from collections.abc import Iterator
from typing import Any

import ijson

from core.importers.byte_stream import ByteStream, Utf8
from core.importers.turns import Damaged

HEAD_BYTES = 1024 * 1024
MOST_KEYS = 2_000
MOST_LEVELS = 100
_END = object()


def items(stream: ByteStream, prefix: str) -> Iterator[Any]:
    """Yield what stands at `prefix`, as `item` or `conversations.item`.

    Raises Damaged where the JSON ends too early, is none, or an item is too large to be one.
    """
    reader = Utf8(stream)
    found = ijson.items(reader, prefix, buf_size=16_384)
    while True:
        reader.allow_an_item()
        try:
            item = next(found, _END)
        except (ijson.JSONError, ValueError, ArithmeticError) as error:
            # Its C parser has one class for all, and says this of the end alone.
            cut = "premature EOF" in str(error)
            raise Damaged(stream.damage or ("cut" if cut else "not_json")) from error
        if item is _END:
            return
        yield item


def keys_of(head: bytes) -> list[str]:
    """Name the keys in the head of a JSON text with the way to them, as `item.mapping`."""
    text = head.decode("utf-8", "ignore").removeprefix("\ufeff")
    keys: dict[str, None] = {}
    # Where the parser is; a list's members go by the name of `item`.
    way: list[str] = []
    try:
        for event, value in ijson.basic_parse(text.encode()):
            if event == "map_key":
                way[-1] = value
                keys[".".join(way)] = None
            elif event.startswith("start_"):
                way.append("item" if event == "start_array" else "")
            elif event.startswith("end_"):
                way.pop()
            if len(way) > MOST_LEVELS or len(keys) >= MOST_KEYS:
                break
    except (ijson.JSONError, ValueError, ArithmeticError):
        pass
    return [key for key in keys if key.count(".") <= 4]
