"""The file in a multipart form, as it arrives: nothing of it is held or written here."""

from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from core.errors import InvalidInput

MOST_HEADER_BYTES = 8_192
_NO_FILE = "Send the file in a form field with a file name, or as the body itself."


class _Form:
    """Keeps the data of the first part that has a file name."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.ready: list[bytes] = []
        self.complete = False
        self._field = b""
        self._value = b""
        self._inside = False

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._bound()

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._bound()

    def _bound(self) -> None:
        if len(self._field) + len(self._value) > MOST_HEADER_BYTES:
            raise InvalidInput("The form is not valid.")

    def on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition" and self.name is None:
            options = parse_options_header(self._value)[1]
            if b"filename" in options:
                self.name = options[b"filename"].decode("utf-8", "replace")
                self._inside = True
        self._field = self._value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self.ready.append(data[start:end])

    def on_part_end(self) -> None:
        self._inside = False

    def on_end(self) -> None:
        self.complete = True

    def taken(self) -> list[bytes]:
        ready, self.ready = self.ready, []
        return ready


async def file_in_form(
    content_type: str, chunks: AsyncIterator[bytes]
) -> tuple[str | None, AsyncIterator[bytes]]:
    """Return the name of the form's file, and the file. Raises InvalidInput where there is none."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise InvalidInput(_NO_FILE)
    form = _Form()
    parser = MultipartParser(
        boundary,
        {
            "on_header_field": form.on_header_field,
            "on_header_value": form.on_header_value,
            "on_header_end": form.on_header_end,
            "on_part_data": form.on_part_data,
            "on_part_end": form.on_part_end,
            "on_end": form.on_end,
        },
    )
    async for chunk in chunks:
        _feed(parser, chunk)
        if form.name is not None:
            break
    if form.name is None:
        raise InvalidInput(_NO_FILE)
    return _short(form.name), _file(form, parser, chunks)


async def _file(
    form: _Form, parser: MultipartParser, chunks: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    for part in form.taken():
        yield part
    async for chunk in chunks:
        _feed(parser, chunk)
        for part in form.taken():
            yield part
    if not form.complete:
        raise InvalidInput("The form ended in the middle of the file.")


def _feed(parser: MultipartParser, chunk: bytes) -> None:
    try:
        parser.write(chunk)
    except FormParserError as error:
        raise InvalidInput("The form is not valid.") from error


def _short(name: str) -> str | None:
    """The name is only shown; no path is ever made of it."""
    return name.replace("\0", "").rpartition("/")[2].rpartition("\\")[2][:500] or None
