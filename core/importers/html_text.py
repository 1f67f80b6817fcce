"""An answer that a site wrote as HTML, as the Markdown that it was made of, more or less."""

import re
from html.parser import HTMLParser

_BLOCKS = {"p", "div", "table", "tr", "blockquote", "ul", "ol", "pre", "section", "article"}
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_MARKS = {"strong": "**", "b": "**", "em": "*", "i": "*"}
_UNSEEN = {"script", "style", "template"}


class _Writer(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._lists: list[int | None] = []
        self._links: list[str] = []
        self._in_pre = self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag in _HEADINGS:
            self.parts.append("\n\n" + _HEADINGS[tag])
        elif tag in _MARKS and not self._in_pre:
            self.parts.append(_MARKS[tag])
        elif tag == "br":
            self.parts.append("\n")
        elif tag == "hr":
            self.parts.append("\n\n---\n\n")
        elif tag == "li":
            self.parts.append(self._bullet())
        elif tag in ("td", "th"):
            self.parts.append(" | ")
        elif tag == "a":
            self._links.append(dict(attrs).get("href") or "")
            self.parts.append("[" if self._links[-1] else "")
        elif tag == "code" and not self._in_pre:
            self.parts.append("`")
        elif tag in _BLOCKS:
            self._open_block(tag)

    def _open_block(self, tag: str) -> None:
        inside_list = bool(self._lists)
        if tag in ("ul", "ol"):
            self._lists.append(0 if tag == "ol" else None)
        if tag == "pre":
            self._in_pre += 1
            self.parts.append("\n\n```\n")
        else:
            self.parts.append("\n" if tag == "tr" or inside_list else "\n\n")

    def _bullet(self) -> str:
        indent = "  " * max(0, len(self._lists) - 1)
        if not self._lists or self._lists[-1] is None:
            return f"\n{indent}- "
        self._lists[-1] += 1
        return f"\n{indent}{self._lists[-1]}. "

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag in _MARKS and not self._in_pre:
            self.parts.append(_MARKS[tag])
        elif tag == "a" and self._links:
            link = self._links.pop()
            self.parts.append(f"]({link})" if link else "")
        elif tag == "code" and not self._in_pre:
            self.parts.append("`")
        elif tag == "pre":
            self._in_pre = max(0, self._in_pre - 1)
            self.parts.append("\n```\n\n")
        elif tag in ("ul", "ol") and self._lists:
            self._lists.pop()
            self.parts.append("" if self._lists else "\n\n")
        elif tag in _HEADINGS or tag in _BLOCKS - {"tr"}:
            self.parts.append("\n" if self._lists else "\n\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data if self._in_pre else re.sub(r"[ \t\r\n]+", " ", data))


def html_text(html: str) -> str:
    writer = _Writer()
    writer.feed(html)
    writer.close()
    text = "".join(writer.parts).replace("\xa0", " ")
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()
