"""Whatever a file holds: what can be read of it is, once and in its order; the rest is said."""

import io
import itertools
import json
import zipfile
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.import_units import Ready, ready
from core.importers import archive, byte_stream
from core.importers.formats import Export
from core.importers.html_text import html_text
from core.importers.turns import Turn, Unusable
from tests.exports import (
    FORMATS,
    START,
    Chat,
    Said,
    chatgpt,
    chats,
    claude,
    gemini,
    gemini_html,
    grok,
    jsonl,
    perplexity,
    zipped,
)

USER = UUID(int=7)


def read(tmp_path, content):
    """Return the units of a file, and the export that read them."""
    path = tmp_path / "upload"
    path.write_bytes(content)
    with path.open("rb") as file:
        export = Export(file, path)
        return list(export.units()), export


def seen(units):
    return [
        (u.conversation_id, u.conversation_title, u.prompt, u.response, u.occurred_at, u.message_id)
        for u in units
        if isinstance(u, Turn)
    ]


def reasons(units):
    return [u.reason for u in units if isinstance(u, Unusable)]


PLAIN = st.text(
    st.characters(exclude_categories=("Cs", "Co"), exclude_characters="\0"), min_size=1, max_size=60
).filter(str.strip)
WORDS = st.lists(st.sampled_from(["walrus", "lion", "42", "naïve"]), min_size=1).map(" ".join)


@st.composite
def a_past(draw, answers=PLAIN, most_answers=3):
    """Chats of any text, some answers regenerated, each turn later than the last."""
    numbers = itertools.count()
    found = []
    for c in range(draw(st.integers(1, 3))):
        turns = tuple(
            Said(
                draw(PLAIN),
                tuple(draw(st.lists(answers, min_size=1, max_size=most_answers))),
                START + timedelta(hours=next(numbers)),
                f"m{next(numbers)}",
                draw(st.sampled_from([None, "model-1"])),
            )
            for _ in range(draw(st.integers(1, 4)))
        )
        found.append(Chat(f"chat-{c}", draw(WORDS), turns))
    return found


def told(past, *, titles=True, regenerated=True):
    """What an import must find in it, in the order of chats."""
    for chat in past:
        for said in chat.turns:
            for n, answer in enumerate(said.answers if regenerated else said.answers[:1]):
                at = said.at + timedelta(seconds=1 + n) if n else said.at
                name = f"{said.id}-a{n}" if n else said.id
                yield chat.id, chat.title if titles else None, said.prompt, answer, at, name


examples = settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


@examples
@given(past=a_past(), packed=st.booleans())
@pytest.mark.parametrize("write", [chatgpt, claude])
def test_what_was_said_is_read_back_with_every_regenerated_answer(tmp_path, write, past, packed):
    content = write(past)

    units, _ = read(tmp_path, zipped({"a.json": content}) if packed else content)

    assert seen(units) == list(told(past))
    further = [unit for unit in units if unit.replaces]
    assert {unit.message_id for unit in further} == {
        f"{said.id}-a{n}"
        for chat in past
        for said in chat.turns
        for n in range(1, len(said.answers))
    }


@examples
@given(past=a_past(most_answers=1), mongo=st.booleans())
def test_groks_chats_are_read_back_with_either_form_of_time(tmp_path, past, mongo):
    units, _ = read(tmp_path, grok(past, mongo=mongo))

    assert seen(units) == list(told(past))


@examples
@given(past=a_past(answers=WORDS))
def test_geminis_activity_is_read_back_with_every_regenerated_answer(tmp_path, past):
    units, _ = read(tmp_path, gemini(past))

    found = sorted((chat, at, prompt, said) for chat, _, prompt, said, at, _ in seen(units))
    assert found == sorted(
        (chat.id, said.at, said.prompt, answer)
        for chat in past
        for said in chat.turns
        for answer in said.answers
    )


@examples
@given(past=a_past(most_answers=1), packed=st.booleans())
def test_perplexitys_threads_are_read_back(tmp_path, past, packed):
    content = perplexity(past)

    units, export = read(tmp_path, zipped({"a.json": content}) if packed else content)

    assert seen(units) == list(told(past))
    assert list(export.formats) == ["perplexity"]


def words_of(text):
    """What a page of HTML shows of a text: it folds white space."""
    return " ".join(text.split())


@examples
@given(past=a_past(answers=WORDS, most_answers=1))
def test_geminis_page_is_read_back_whatever_was_asked(tmp_path, past):
    units, export = read(tmp_path, gemini_html(past))

    found = sorted((at, words_of(prompt), said) for _, _, prompt, said, at, _ in seen(units))
    assert found == sorted(
        (said.at, words_of(said.prompt), answer)
        for chat in past
        for said in chat.turns
        for answer in said.answers
    )
    assert len(seen(units)) == len(units)
    assert list(export.formats) == ["gemini"]


@examples
@given(past=a_past(most_answers=1))
def test_json_lines_are_read_back(tmp_path, past):
    units, _ = read(tmp_path, jsonl(past))

    assert seen(units) == list(told(past))


@pytest.mark.parametrize("verb", ["Prompted ", "Eingegebener Prompt: ", "Prompted\u00a0"])
def test_takeouts_verb_is_taken_off_where_it_is_known(tmp_path, verb):
    units, _ = read(tmp_path, gemini(chats(1, 1), verb))
    assert units[0].prompt == "question c0 0"


def test_takeouts_title_is_kept_whole_where_its_verb_is_not_known(tmp_path):
    units, _ = read(tmp_path, gemini(chats(1, 1), "Ingevoerde prompt: "))
    assert units[0].prompt == "Ingevoerde prompt: question c0 0"


@pytest.mark.parametrize(
    ("date", "hour"),
    [
        ("Mar 1, 2025, 9:00:00\u202fAM UTC", 9),
        ("1 Mar 2025, 09:00:00 GMT", 9),
        ("01.03.2025, 10:00:00 MEZ", 9),
        ("2025/03/01 18:00:00 JST", 9),
        ("Mar 1, 2025, 12:30:00 PM PST", 20),
        ("1 Mar 2025, 12:00:00 GMT+03:00", 9),
    ],
)
def test_takeouts_html_is_read_in_several_forms_of_date(tmp_path, date, hour):
    page = gemini_html(chats(1, 1)).decode().replace("Mar 1, 2025, 9:00:00\u202fAM UTC", date)

    units, export = read(tmp_path, page.encode())

    [(_, _, prompt, answer, at, _)] = seen(units)
    assert (prompt, answer, at.hour) == ("question c0 0", "answer c0 0", hour)
    assert list(export.formats) == ["gemini"]


def test_what_a_site_shows_no_more_is_kept_and_marked(tmp_path):
    [chat] = json.loads(chatgpt([Chat("c", "T", (Said("q", ("old", "new"), START, "u"),))]))
    system = {"role": "system", "create_time": 1}
    chat["mapping"]["hidden"] = {
        "id": "hidden",
        "parent": "u",
        "message": {"id": "hidden", "author": system, "content": {"parts": ["secret rules"]}},
    }

    units, _ = read(tmp_path, json.dumps([chat]).encode())

    assert [(u.response, u.metadata) for u in units] == [("old", {}), ("new", {})]
    chat["current_node"] = "u-a0"
    units, _ = read(tmp_path, json.dumps([chat]).encode())
    assert [u.metadata for u in units] == [{}, {"branch": "other"}]


def test_only_what_the_person_saw_is_an_answer(tmp_path):
    [chat] = json.loads(chatgpt([Chat("c", "T", (Said("q", ("the answer",), START, "u"),))]))
    seen_by_nobody = [
        ({"content_type": "thoughts", "thoughts": []}, {}),
        ({"content_type": "code", "text": "search()"}, {"recipient": "web"}),
        ({"content_type": "text", "parts": ["to myself"]}, {"channel": "analysis"}),
        ({"content_type": "text", "parts": ["hidden"]}, {"recipient": "python"}),
    ]
    parent = "u"
    for n, (content, more) in enumerate(seen_by_nobody):
        message = {"id": f"t{n}", "author": {"role": "assistant"}, "content": content} | more
        chat["mapping"][f"t{n}"] = {"id": f"t{n}", "parent": parent, "message": message}
        parent = f"t{n}"
    chat["mapping"]["u-a0"]["parent"] = parent
    said = chat["mapping"]["u-a0"]["message"]["content"]
    said["parts"] = ["the \ue200cite\ue202turn0search1\ue201answer", {"asset_pointer": "file"}]

    units, _ = read(tmp_path, json.dumps([chat]).encode())

    assert [(u.prompt, u.response) for u in units] == [("q", "the answer")]


CUTTABLE = [
    *((name, write) for name, write in FORMATS.items() if name != "perplexity"),
    ("gemini_html", gemini_html),
]


@pytest.mark.parametrize(("name", "write"), CUTTABLE, ids=[name for name, _ in CUTTABLE])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "zip"])
def test_of_a_cut_file_what_came_before_the_cut_is_kept_and_said(tmp_path, name, write, packed):
    content = write(chats(40))
    content = zipped({"x": content}) if packed else content
    whole = seen(read(tmp_path, content)[0])
    most = 0

    for share in (0.05, 0.3, 0.5, 0.7, 0.9, 0.97):
        units, _ = read(tmp_path, content[: int(len(content) * share)])
        kept = seen(units)
        assert reasons(units)[-1:] == ["cut"] or (packed and not units) or kept == whole
        if name.startswith("gemini"):
            # Cut within a chat, its oldest turns are missing: its name may be another.
            assert {turn[2:] for turn in kept} <= {turn[2:] for turn in whole}
        else:
            assert kept == whole[: len(kept)]
        assert len(kept) >= most
        most = len(kept)
    assert most > 0 or packed


def bomb():
    return zipped({"conversations.json": b"[" + b" " * 300_000_000})


def encrypted_zip():
    content = bytearray(zipped({"a.json": chatgpt(chats(1))}))
    content[6] |= 1
    return bytes(content)


ONE = chatgpt(chats(1))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        pytest.param(bomb, ["zip_bomb"], id="a zip bomb"),
        pytest.param(encrypted_zip, ["damaged_zip"], id="an encrypted zip"),
        pytest.param(lambda: b"[" * 200_000, [], id="depth without end"),
        pytest.param(lambda: ONE[:-1] + b"," + b"[" * 5_000 + b"]" * 5_000 + b"]", None, id="deep"),
        pytest.param(lambda: ONE[:-1] + b", 1e999999, 5]", None, id="a number without end"),
        pytest.param(lambda: ONE[:-1] + b", nonsense]", ["not_json"], id="not JSON at the end"),
        pytest.param(
            lambda: ONE[:-1] + b', null, 7, {"mapping": 3}]',
            ["not_a_conversation"] * 3,
            id="other things",
        ),
        pytest.param(lambda: b"PK\x03\x04" + b"\xff" * 500, None, id="a zip of noise"),
        pytest.param(lambda: b"\xff\xfe" + b"\x00" * 5_000, [], id="noise"),
        pytest.param(lambda: b"", [], id="nothing"),
        pytest.param(lambda: b'{"prompt": "\\ud800"}\n', [], id="half a surrogate pair"),
    ],
)
def test_hostile_files_end_in_a_reason_and_not_in_a_crash(tmp_path, content, found):
    units, export = read(tmp_path, content())

    assert found is None or reasons(units) == found
    assert all(isinstance(unit, Turn | Unusable) for unit in units)
    if not export.formats:
        assert "Expected: ChatGPT" in export.not_recognised()


def test_a_conversation_that_is_a_circle_is_no_trap(tmp_path):
    mapping = {
        name: {"id": name, "parent": parent, "message": {"id": name, "author": {"role": "user"}}}
        for name, parent in (("a", "b"), ("b", "a"), ("c", "c"))
    }
    units, _ = read(tmp_path, json.dumps([{"mapping": mapping, "current_node": "a"}]).encode())

    assert reasons(units) in (["empty_conversation"], ["no_text"])


def test_a_conversation_without_end_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(byte_stream, "MOST_ITEM_BYTES", 300_000)
    endless = json.dumps({"mapping": {"a": "x" * 2_000_000}}).encode()

    units, _ = read(tmp_path, ONE[:-1] + b"," + endless + b"]")

    assert len(seen(units)) == 2
    assert reasons(units) == ["too_large"]


def test_broken_utf8_is_mended_and_the_rest_is_read(tmp_path):
    content = claude([Chat("c", "T", (Said("before BROKEN after", ("ok",), START, "u"),))])

    units, _ = read(tmp_path, content.replace(b"BROKEN", b"\xff\xfe"))

    assert units[0].prompt == "before \ufffd\ufffd after"
    nul = jsonl(chats(1, 1)).replace(b"question", b"\\u0000 \\ud83d")
    [unit] = read(tmp_path, nul)[0]
    made = ready(unit, USER)
    assert isinstance(made, Ready)
    assert made.captures[0].text == "\ufffd \ufffd c0 0"


def test_names_in_a_zip_are_never_paths_and_private_files_are_not_read(tmp_path):
    outside = tmp_path / "outside"
    files = {"../outside": ONE, "/etc/x": chatgpt(chats(1, prefix="d")), "a\\..\\b": b"\x00"}
    files["prod-mc-auth-mgmt-api.json"] = chatgpt(chats(1, prefix="private"))

    units, export = read(tmp_path, zipped(files))

    assert len(seen(units)) == 4
    assert not outside.exists()
    assert "private" not in str(seen(units)) + str(export.seen)


def test_an_archive_in_an_archive_is_not_opened_and_is_said(tmp_path):
    units, export = read(tmp_path, zipped({"part1.zip": zipped({"a.json": ONE})}))

    assert units == []
    assert "archive within the archive" in export.not_recognised()


def test_an_archive_of_too_many_files_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_ENTRIES", 3)
    units, _ = read(tmp_path, zipped({str(n): ONE if n == 0 else b"x" for n in range(9)}))

    assert len(seen(units)) == 2
    assert reasons(units) == ["too_many_files"]


def test_split_files_and_numbered_ones_are_one_export(tmp_path):
    files = {
        f"conversations-00{n}.json": chatgpt(chats(2, prefix=f"part{n}-")) for n in range(3)
    } | {"user.json": b'{"id": 1}', "chat.html": b"<html>x</html>", "image.png": b"\x89PNG"}

    units, export = read(tmp_path, zipped(files))

    assert len(seen(units)) == 12
    assert list(export.formats) == ["chatgpt"]


def test_a_changed_format_says_what_was_expected_and_found(tmp_path):
    changed = ONE.replace(b'"mapping"', b'"nodes"')

    _, export = read(tmp_path, changed)

    said = export.not_recognised()
    assert "Expected: ChatGPT (conversations.json: a list of objects with `mapping`)" in said
    assert (
        "Found: JSON, a list of objects with the keys title, create_time, conversation_id" in said
    )


def test_a_stored_zip_is_read_as_well_as_a_deflated_one(tmp_path):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as stored:
        stored.writestr("a.json", ONE)

    assert len(seen(read(tmp_path, target.getvalue())[0])) == 2


@pytest.mark.parametrize(
    "shape",
    [
        {"conversations": [{"context_title": "T", "entries": [{"query": "q", "answer": "a"}]}]},
        {"metadata": {"thread_title": "T"}, "conversations": [{"query": "q", "answer": "a"}]},
        {
            "thread_metadata": {"title": "T"},
            "entries": [{"query_str": "q", "blocks": [{"markdown_block": {"chunks": ["a"]}}]}],
        },
    ],
    ids=["data request", "exporter", "exporter of raw entries"],
)
def test_perplexity_is_read_in_its_three_shapes(tmp_path, shape):
    units, export = read(tmp_path, json.dumps(shape).encode())

    assert [(u.prompt, u.response, u.conversation_title) for u in units] == [("q", "a", "T")]
    assert list(export.formats) == ["perplexity"]


def test_a_text_beyond_the_limit_is_skipped_and_not_shortened():
    turn = Turn("chatgpt", "x" * (1024 * 1024 + 1), None, START, "m")
    assert ready(turn, USER) == Unusable("too_large")


AS_MARKDOWN = {
    "paragraphs": ("<p>one</p><p>two<br>three</p>", "one\n\ntwo\nthree"),
    "headings and a line": ("<h2>Title</h2>text<hr>more", "## Title\n\ntext\n\n---\n\nmore"),
    "marks": ("<b>bold</b> and <em>soft</em> <code>x = 1</code>", "**bold** and *soft* `x = 1`"),
    "code as it is": (
        "<pre><code>if x:\n    <b>y</b>()</code></pre>after",
        "```\nif x:\n    y()\n```\n\nafter",
    ),
    "a list": ("<ul><li>one</li><li>two</li></ul>after", "- one\n- two\n\nafter"),
    "numbers, and a list in a list": (
        "<ol><li>one<ul><li>inner</li></ul></li><li>two</li></ol>",
        "1. one\n\n  - inner\n2. two",
    ),
    "an item without a list": ("<li>alone</li>", "- alone"),
    "a table": ("<table><tr><td>a</td><td>b</td></tr></table>", "| a | b"),
    "links": (
        '<a href="https://a.example">a</a> and <a>none</a>',
        "[a](https://a.example) and none",
    ),
    "what nobody sees": ("<style>p {}</style>text<script>alert(1)</script>", "text"),
    "ends without a beginning": ("</pre></script></ul></a>text", "```\n\ntext"),
}


@pytest.mark.parametrize(("html", "text"), AS_MARKDOWN.values(), ids=AS_MARKDOWN)
def test_an_answer_in_html_is_kept_as_the_markdown_it_was_made_of(html, text):
    assert html_text(html) == text
