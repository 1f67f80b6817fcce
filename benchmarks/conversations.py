"""Recorded conversations with questions and their evidence, read from three public formats.

LoCoMo: a JSON list of rows with `conversation` and `qa`. BEAM: NAME.messages.jsonl.gz beside
NAME.questions.jsonl.gz. LongMemEval: a JSON list of rows with `haystack_sessions`.
"""

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

# Their evidence is dozens of messages, or none: no measure for a list of ten.
NOT_POINTED = {"abstention", "event_ordering", "summarization"}
LOCOMO_CATEGORIES = {
    "1": "multi-hop",
    "2": "temporal",
    "3": "open-domain",
    "4": "single-hop",
    "5": "adversarial",
}
DATE_FORMATS = (
    "%I:%M %p on %d %B, %Y",
    "%B-%d-%Y",
    "%Y/%m/%d (%a) %H:%M",
    "%d.%m.%Y, %H:%M:%S",
    "%Y-%m-%d",
)


@dataclass
class Turn:
    """What becomes one memory; `label` is its name in the data."""

    label: str
    session: str
    occurred_at: datetime | None
    prompt: str
    response: str = ""


@dataclass(frozen=True)
class Question:
    """`turns` is empty where the data names sessions only."""

    text: str
    category: str
    turns: frozenset[str]
    sessions: frozenset[str]
    asked_at: datetime | None = None


@dataclass
class Conversation:
    """All that one person has said: one user of the product."""

    name: str
    turns: list[Turn]
    questions: list[Question] = field(default_factory=list)


def load(data_dir: Path) -> dict[str, list[Conversation]]:
    """Return every set found under `data_dir` by the name of its file."""
    sets: dict[str, list[Conversation]] = {}
    for path in sorted(data_dir.rglob("*.json")):
        rows = json.loads(path.read_text("utf-8"))
        first = rows[0] if isinstance(rows, list) and rows else None
        if isinstance(first, dict) and "haystack_sessions" in first:
            sets[path.stem] = [longmemeval(row) for row in rows]
        elif isinstance(first, dict) and {"conversation", "qa"} <= first.keys():
            sets[path.stem] = [locomo(n, row) for n, row in enumerate(rows)]
    for path in sorted(data_dir.rglob("*.messages.jsonl.gz")):
        name = path.name.removesuffix(".messages.jsonl.gz")
        questions = _lines(path.with_name(f"{name}.questions.jsonl.gz"))
        sets[name] = list(beam(_lines(path), questions))
    return sets


def locomo(number: int, row: dict) -> Conversation:
    """A turn of either speaker is a memory; there is no field for who spoke but the text."""
    said = row["conversation"]
    sessions = sorted(
        (key for key in said if re.fullmatch(r"session_\d+", key)), key=lambda key: int(key[8:])
    )
    turns = [
        Turn(_dialogue_ids(turn["dia_id"])[0], session, date, _as_said(turn))
        for session in sessions
        for date in [_date(said.get(f"{session}_date_time"))]
        for turn in said[session]
    ]
    conversation = Conversation(str(row.get("sample_id", number)), turns)
    for item in row["qa"]:
        wanted = {label for text in item.get("evidence", []) for label in _dialogue_ids(text)}
        category = str(item.get("category", "all"))
        category = LOCOMO_CATEGORIES.get(category, category)
        _add_question(conversation, item["question"], category, wanted)
    return conversation


def _as_said(turn: dict) -> str:
    text = turn.get("text") or turn.get("clean_text") or ""
    caption = turn.get("blip_caption")
    return f"{turn['speaker']}: {text}" + (f" [shares {caption}]" if caption else "")


def _dialogue_ids(text: str) -> list[str]:
    """Some evidence is written `D:11:26`, `D9:01` or as several ids in one string."""
    return [f"D{int(s)}:{int(n)}" for s, n in re.findall(r"D:?(\d+):(\d+)", text)]


def beam(messages: list[dict], questions: list[dict]) -> Iterator[Conversation]:
    """A prompt and its answer are a memory; the messages of one date are a chat."""
    for name, rows in _grouped(messages).items():
        turns: list[Turn] = []
        turn_of: dict[str, str] = {}
        for row in rows:
            if row["role"] == "user":
                date = row.get("date")
                turns.append(Turn(str(row["id"]), str(date), _date(date), row["content"]))
            elif turns:
                turns[-1].response = row["content"]
            if turns:
                turn_of[str(row["id"])] = turns[-1].label
        conversation = Conversation(name, turns)
        for item in _grouped(questions).get(name, []):
            if item["ability"] not in NOT_POINTED:
                wanted = {turn_of.get(str(n), "") for n in item["source_ids"]}
                _add_question(conversation, item["question"], item["ability"], wanted)
        yield conversation


def longmemeval(row: dict) -> Conversation:
    """Each question has a history of its own."""
    turns: list[Turn] = []
    wanted: set[str] = set()
    dated = zip(row["haystack_session_ids"], row["haystack_dates"], strict=True)
    for (session, date), said in zip(dated, row["haystack_sessions"], strict=True):
        for n, message in enumerate(said):
            if message["role"] == "user" or not turns or turns[-1].session != session:
                turns.append(Turn(f"{session}:{n}", session, _date(date), ""))
            side = "prompt" if message["role"] == "user" else "response"
            setattr(turns[-1], side, message["content"])
            if message.get("has_answer"):
                wanted.add(turns[-1].label)
    conversation = Conversation(row["question_id"], turns)
    if not row["question_id"].endswith("_abs"):
        question = Question(
            row["question"],
            row["question_type"],
            frozenset(wanted),
            frozenset(row["answer_session_ids"]),
            _date(row.get("question_date")),
        )
        conversation.questions.append(question)
    return conversation


def _add_question(
    conversation: Conversation, text: str, category: str, wanted: Iterable[str]
) -> None:
    """Leave out what has no evidence in the conversation: nothing could find it."""
    session_of = {turn.label: turn.session for turn in conversation.turns}
    turns = frozenset(wanted) & session_of.keys()
    if turns:
        sessions = frozenset(session_of[label] for label in turns)
        conversation.questions.append(Question(text, category, frozenset(turns), sessions))


def _date(text: str | None) -> datetime | None:
    for form in DATE_FORMATS:
        try:
            return datetime.strptime(text or "", form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


def _lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _grouped(rows: list[dict]) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        groups[row["conv"]].append(row)
    return groups
