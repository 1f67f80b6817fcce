"""Cleans what a model wrote after reading memories, piece by piece as it comes.

A memory may have told it to make an image or a link whose address carries what it read away. So
nothing is left that a page would load, or make a link of: images and links become their text, tags
that name an address go, and what is an address becomes code. Code is left as it is.
"""

import re

# For more than this of what may become a link nothing is waited.
MOST_HELD = 3_000

_REST = r"[^\s<>`\"'()\[\]|]"
# With a scheme or without, `www.…`, a mail address, `name.tld/…`: pages make links of them all.
_ADDRESS = (
    rf"(?:[a-zA-Z][a-zA-Z0-9+.-]{{0,20}}:)?//{_REST}+|(?:www\.|mailto:){_REST}+"
    rf"|(?<![\w.+-])[\w.+-]{{1,64}}@{_REST}+|(?<![\w.-])(?:[\w-]{{1,63}}\.){{1,8}}\w{{2,24}}[/?]{_REST}*"
)
_TARGET = r"\((?:[^()]|\([^()]*\))*\)|\[[^\[\]]*\]"
_TOKEN = re.compile(
    rf"""
      (?P<fence>(?<![^\n])`{{3,}}[^`\n]*\n)
    | (?P<code>(?<![`\\])(?P<ticks>`+)(?!`)[^`\n]+(?P=ticks)(?!`))
    | (?P<definition>\ ?\[[^\[\]]+\]:\s*\S*[/:&@?]\S*)
    | (?P<gap>\ ?)\[(?P<cited>\s*\d{{1,4}}(?:\s*,\s*\d{{1,4}})*\s*)\](?!\()
    | (?P<space>\ ?)!?\[(?P<text>[^\[\]]*)\](?:{_TARGET})
    | (?P<arrow>\]\()
    | (?P<tildes>~{{3,}})
    | (?P<tag></?[a-zA-Z!?](?:[^<>"']|"[^"]*"|'[^']*')*>)
    | (?P<address>{_ADDRESS})
    """,
    re.VERBOSE,
)
_BEGINS = re.compile(rf"`| ?!?\[|\]\(|~~~|<(?=[a-zA-Z/!?]|\Z)|{_ADDRESS}")
# Text that more text may yet make one of these.
_UNFINISHED = re.compile(
    r"""
      (?P<code>`+[^`\n]*`*)
    | \ ?!?\[[^\[\]]*(?:\](?:\((?:[^()]|\([^()]*\)?)*\)?|\[[^\[\]]*\]?|:\s*\S*)?)?
    | <(?:[^<>"']|"[^"]*"|'[^']*')*(?:"[^"]*|'[^']*)?
    """,
    re.VERBOSE,
)
_FENCE_ENDS = re.compile(r" {0,3}(`{3,})[ \t\r]*\n")
_MAY_END_FENCE = re.compile(r" {0,3}`*[ \t\r]*")
# The `<T>` of code that was not marked as code; it follows a word.
_HARMLESS_TAG = re.compile(r"<[a-zA-Z][\w ,]*>")


class AnswerText:
    """`sources` is how many may be cited; None where numbers in brackets are no citations."""

    def __init__(self, sources: int | None = None) -> None:
        self.cited: set[int] = set()
        self.removed_citations = 0
        self._sources = sources
        self._held = ""
        self._before = "\n"  # what came before the held text: its last character
        self._last = ""  # what was returned last
        self._fence = 0  # how many backticks opened it

    def feed(self, text: str) -> str:
        """Return what is certain by now; the rest is held until more comes."""
        self._held += text
        return self._clean(final=False)

    def end(self) -> str:
        return self._clean(final=True)

    def _clean(self, *, final: bool) -> str:
        # A lookbehind must see what came before.
        text, at, cleaned = self._before + self._held, 1, []
        while at < len(text):
            inside = self._fence
            out, end = (self._within_fence if inside else self._outside)(text, at, final)
            if end == at:
                break
            if out.startswith("`") and self._last in ("`", "\\") and not inside:
                out = " " + out  # it would be no mark of its own
            cleaned.append(out)
            self._last = out[-1:] or self._last
            at = end
        self._before, self._held = text[at - 1], text[at:]
        return "".join(cleaned)

    def _within_fence(self, text: str, at: int, final: bool) -> tuple[str, int]:
        """Return one line, or what there is of it where it cannot be the end of the block."""
        end = text.find("\n", at) + 1
        if end:
            closing = _FENCE_ENDS.fullmatch(text, at, end) if text[at - 1] == "\n" else None
            if closing and len(closing[1]) >= self._fence:
                self._fence = 0
        elif final or text[at - 1] != "\n" or not _MAY_END_FENCE.fullmatch(text, at):
            end = len(text)
        else:
            end = at
        return text[at:end], end

    def _outside(self, text: str, at: int, final: bool) -> tuple[str, int]:
        """Return plain text or the next thing that is more; nothing where it may grow."""
        begins = _BEGINS.search(text, at)
        if begins is None or begins.start() > at:
            end = begins.start() if begins else _certain(text, at, final)
            return text[at:end], end
        token = _TOKEN.match(text, at)
        if not final and not (token and token["fence"]) and _may_grow(text, at, token):
            return "", at
        if token is None:
            ticks = len(text[at:]) - len(text[at:].lstrip("`"))
            # Left where they are, backticks of no code would pair with those of ours, and what
            # begins like a tag might be one to somebody.
            return ("", at + ticks) if ticks else (text[at].replace("<", "< "), at + 1)
        return self._replaced(token), token.end()

    def _replaced(self, token: re.Match[str]) -> str:
        whole = token[0]
        if token["fence"] is not None:
            self._fence = len(whole) - len(whole.lstrip("`"))
            return whole
        if token["code"] is not None:
            # The cells of a table are parted before code is looked for.
            return whole.replace("//", "/ /") if "|" in whole else whole
        if token["definition"] is not None or token["tildes"] is not None:
            return ""  # within a block that tildes open, backticks would be no code
        if token["cited"] is not None:
            return self._citation(token)
        if token["text"] is not None:
            return token["space"] + _link_text(token["text"])
        if token["arrow"] is not None:
            return "] ("
        if token["tag"] is not None:
            follows_word = self._last.isalnum() or self._last == "_"
            return whole if follows_word and _HARMLESS_TAG.fullmatch(whole) else ""
        return f"`{whole}`"

    def _citation(self, token: re.Match[str]) -> str:
        if self._sources is None:
            return token[0]
        numbers = [int(number) for number in token["cited"].split(",")]
        good = [number for number in numbers if 1 <= number <= self._sources]
        self.cited.update(good)
        self.removed_citations += len(numbers) - len(good)
        return f"{token['gap']}[{', '.join(map(str, good))}]" if good else ""


def _link_text(text: str) -> str:
    """The text is often the address again."""
    return re.sub(_ADDRESS, r" `\g<0>` ", re.sub("[`<>]", "", text))


def _may_grow(text: str, at: int, token: re.Match[str] | None) -> bool:
    if len(text) - at > MOST_HELD:
        return False
    if token and token["address"]:
        return token.end() == len(text)
    return _UNFINISHED.fullmatch(text, at) is not None


def _certain(text: str, at: int, final: bool) -> int:
    """Where plain text is sure to be plain: a word may go on and become an address."""
    if final or len(text) - at > MOST_HELD:
        return len(text)
    return max(text.rfind(" "), text.rfind("\n"), at)
