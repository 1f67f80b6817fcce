"""Gemini's activity where Takeout wrote it as HTML, which is what it does unless told otherwise."""

import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

from core.importers.byte_stream import ByteStream, Utf8
from core.importers.gemini import activity, in_chats
from core.importers.turns import Damaged, Unit, Unusable

_CELL = '<div class="outer-cell'
_CONTENT = '<div class="content-cell'
_BREAK = re.compile(r"<br\s*/?>")
_TAG = re.compile(r"<[^>]*>")
_OURS = re.compile(r"gemini|bard", re.IGNORECASE)
_TIME = r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?\s*(?P<half>[AP]M)?"
_ZONE = r"\s*(?P<zone>[A-Z]{2,5})?(?P<offset>[+-]\d{1,2}(?::?\d\d)?)?"
_DATES = [
    re.compile(rf"{date},?\s+{_TIME}{_ZONE}", re.IGNORECASE)
    for date in (
        r"(?P<name>[A-Z]{3})[a-z]*\.? (?P<day>\d{1,2}), (?P<year>\d{4})",
        r"(?P<day>\d{1,2}) (?P<name>[A-Z]{3})[a-z]*\.? (?P<year>\d{4})",
        r"(?P<day>\d{1,2})[./](?P<month>\d{1,2})[./](?P<year>\d{4})",
        r"(?P<year>\d{4})[./-](?P<month>\d{1,2})[./-](?P<day>\d{1,2})",
    )
]
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Hours east of Greenwich, as Takeout abbreviates them; another is taken for UTC.
_ZONES = {
    **{"UTC": 0, "GMT": 0, "WET": 0, "BST": 1, "CET": 1, "MEZ": 1, "WEST": 1, "CEST": 2, "MESZ": 2},
    **{"EET": 2, "EEST": 3, "MSK": 3, "IST": 5.5, "JST": 9, "KST": 9, "AEST": 10, "AEDT": 11},
    **{"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7},
}


def recognises(head: bytes) -> bool:
    return b"outer-cell" in head and _OURS.search(head.decode("utf-8", "ignore")) is not None


def read(stream: ByteStream, keys: set[str]) -> Iterator[Unit]:
    yield from in_chats(_activity(cell) for cell in _cells(stream))


def _cells(stream: ByteStream) -> Iterator[str]:
    """Yield what stands between the beginnings of cells. Raises Damaged where the last is cut."""
    reader, waiting = Utf8(stream), ""
    while text := reader.text(65_536):
        *whole, waiting = (waiting + text).split(_CELL)
        for cell in whole:
            reader.allow_an_item()
            yield from (cell,) if _CONTENT in cell else ()
    if _CONTENT in waiting and waiting.count(_CONTENT) < 2:
        raise Damaged(stream.damage or "cut")
    if _CONTENT in waiting:
        yield waiting
    if stream.damage or not waiting.rstrip().endswith(">"):
        raise Damaged(stream.damage or "cut")


def _activity(cell: str) -> list[Unit]:
    header, content, *_ = cell.split(_CONTENT)
    if not _OURS.search(header):
        return [Unusable("other_product")]
    content = content.partition(">")[2].rpartition("</div>")[0]
    segments = _BREAK.split(content)
    for n, segment in enumerate(segments):
        if n and (time := _time(_plain(segment).strip())):
            prompt = "\n".join(map(_plain, segments[:n]))
            return activity(prompt, ["<br>".join(segments[n + 1 :])], time, None)
    return [Unusable("unknown_date", failed=True)]


def _plain(markup: str) -> str:
    return html.unescape(_TAG.sub("", markup)).replace("\xa0", " ").replace("\u202f", " ")


def _time(text: str) -> datetime | None:
    for pattern in _DATES:
        if match := pattern.fullmatch(text):
            return _read(match.groupdict())
    return None


def _read(part: dict[str, str | None]) -> datetime | None:
    name = (part.get("name") or "").lower()
    month = _MONTHS.index(name) + 1 if name in _MONTHS else int(part.get("month") or 0)
    hour = int(part["hour"] or 0)
    if part["half"]:
        hour = hour % 12 + (12 if part["half"].upper() == "PM" else 0)
    try:
        read = datetime(
            int(part["year"] or 0),
            month,
            int(part["day"] or 0),
            hour,
            int(part["minute"] or 0),
            int(part["second"] or 0),
            tzinfo=_zone(part["zone"] or "UTC", part["offset"]),
        )
        return read.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _zone(name: str, offset: str | None) -> timezone:
    hours = float(_ZONES.get(name.upper(), 0))
    if offset:
        whole, minutes = int(offset[1:3].rstrip(":")), offset[3:].lstrip(":")
        hours = (whole + int(minutes or 0) / 60) * (-1 if offset[0] == "-" else 1)
    return timezone(timedelta(hours=hours))
