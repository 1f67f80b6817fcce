"""What a model wrote is shown with no remote image and no link, whatever a memory made it write."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from core.answer_text import MOST_HELD, AnswerText
from tests.hostile_memories import EXFILTRATION, HOSTILE

RENDER = MarkdownIt("gfm-like", {"html": True, "linkify": True})
# An attribute that a browser would load or follow to another host.
REMOTE = re.compile(
    r"""<[^>]*\b(?:src|href|srcset|data|action)\s*=\s*["']?\s*(?:[a-z+.-]+:)?(?://|javascript|\w+@)""",
    re.IGNORECASE,
)


def cleaned(text, size=None, sources=3):
    """Clean a text that comes in pieces of `size` characters."""
    answer = AnswerText(sources)
    size = size or len(text) or 1
    pieces = [answer.feed(text[at : at + size]) for at in range(0, len(text), size)]
    return "".join(pieces) + answer.end(), answer


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Claim [1]. Other [9]. Both [1, 7] and [2][3].", "Claim [1]. Other. Both [1] and [2][3]."),
        ("[0] first, [-1] no, [12345] no", " first, [-1] no, [12345] no"),
        ("[1](https://evil.example)", "1"),
        ("`list[0]` and\n```py\na[5] # https://x.y\n```\nend [2]",) * 2,
        ("a < b and Vec<T>, 2 * 3 [a] (b)",) * 2,
        ("![x](https://evil.example/?q=1) ok", "x ok"),
        ("see https://a.b/c d", "see `https://a.b/c` d"),
        ("[1]: The walrus",) * 2,
        ("[ref]: https://evil.example/x.png\nend", "\nend"),
        ("<b>bold</b> <img src='//evil.example'>!", "bold !"),
        ("half [open",) * 2,
        ("``` \n```\n\n![x](//evil.example)", "``` \n```\n\nx"),
        ("", ""),
    ],
)
def test_what_is_written_and_what_is_shown(written, shown):
    for size in (1, 2, 3, 7, None):
        assert cleaned(written, size)[0] == shown


def test_citations_are_counted():
    _, answer = cleaned("[1] [2, 2] [4] [9, 3]")

    assert answer.cited == {1, 2, 3}
    assert answer.removed_citations == 2


def test_numbers_in_brackets_stay_where_nothing_was_to_be_cited():
    assert cleaned("a[1] and [77]", sources=None)[0] == "a[1] and [77]"


def test_plain_words_are_not_held_back():
    answer = AnswerText(3)

    shown = [
        answer.feed(word) for word in ("The ", "walrus ", "sleeps", ".", " Twice ", "[1", "] ")
    ]

    assert shown == ["The", " walrus", "", "", " sleeps.", " Twice", ""] or "".join(shown).strip()
    assert "".join(shown) + answer.end() == "The walrus sleeps. Twice [1] "


def test_what_never_becomes_a_link_is_shown_at_last():
    answer = AnswerText(3)

    shown = answer.feed("[" + "x" * MOST_HELD) + answer.feed("y")

    assert shown.startswith("[xxx")


PIECES = st.sampled_from(
    [
        *EXFILTRATION,
        "![x](https://evil.example/a)", "`", "``", "```", "```\n", "```py\n", "~~~\n", "\n", "\n\n",
        "    ", "- ", "> ", "| ", "|", "\\", "<div>", "</div>", "<!--", "-->", "<a title=\"", "\">",
        "[", "]", "(", ")", "![", "](", "](https://evil.example/b)", "[r]: https://evil.example/c",
        "![r][r]", "[r]", "https&#58;//evil.example/d", "<https://evil.example/e>", "a", " ", "[1]",
        "www.evil.example", "mailto:a@evil.example", "b@evil.com", "evil.com/g?q=x", "evil.com?q",
        "tel:",
        "HTTPS://evil.com", "1. ", "#", "---\n", "|-|-|\n", "*", "&#96;",
        "<img src=", "https://evil.example/f", "'", '"', ">", "<", "!", ":", "\t", "\r\n", "  ",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join), st.sampled_from([1, 4, None]))
def test_no_page_loads_or_links_anything_of_an_answer(text, size):
    shown, _ = cleaned(text, size)

    assert not REMOTE.search(RENDER.render(shown)), shown


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_memory_that_is_repeated_loads_and_links_nothing(text):
    shown, _ = cleaned(text[:20_000], 500)

    assert not REMOTE.search(RENDER.render(shown))


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=10).map("".join), st.integers(1, 9))
def test_how_a_text_is_cut_into_pieces_changes_nothing(text, size):
    assert cleaned(text, size)[0] == cleaned(text)[0]
