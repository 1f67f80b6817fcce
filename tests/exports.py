"""Exports as the assistants write them, made of the same simple chats."""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any

START = datetime(2025, 3, 1, 9, tzinfo=UTC)


@dataclass(frozen=True)
class Said:
    """A turn; `answers` are more than one where the answer was regenerated."""

    prompt: str
    answers: tuple[str, ...]
    at: datetime = START
    id: str = "m"
    model: str | None = None


@dataclass(frozen=True)
class Chat:
    id: str
    title: str
    turns: tuple[Said, ...] = field(default=())


def zipped(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def chatgpt(chats: Sequence[Chat]) -> bytes:
    return json.dumps([_chatgpt(chat) for chat in chats]).encode()


def _chatgpt(chat: Chat) -> dict[str, Any]:
    mapping: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None}}
    last = "root"

    def add(name: str, role: str, text: str, at: datetime, parent: str, **more: Any) -> None:
        message = {
            "id": name,
            "author": {"role": role},
            "create_time": at.timestamp(),
            "content": {"content_type": "text", "parts": [text]},
            "metadata": more,
            "recipient": "all",
        }
        mapping[name] = {"id": name, "message": message, "parent": parent, "children": []}

    hidden = {"is_visually_hidden_from_conversation": True}
    add(f"{chat.id}-system", "system", "", START, last, **hidden)
    last = f"{chat.id}-system"
    for said in chat.turns:
        add(said.id, "user", said.prompt, said.at, last)
        last = said.id
        for n, answer in enumerate(said.answers):
            at = said.at + timedelta(seconds=1 + n)
            model = {"model_slug": said.model} if said.model else {}
            last = f"{said.id}-a{n}"
            add(last, "assistant", answer, at, said.id, **model)
    return {
        "title": chat.title,
        "create_time": START.timestamp(),
        "conversation_id": chat.id,
        "id": chat.id,
        "current_node": last,
        "mapping": mapping,
    }


def claude(chats: Sequence[Chat]) -> bytes:
    return json.dumps([_claude(chat) for chat in chats], ensure_ascii=False).encode()


def _claude(chat: Chat) -> dict[str, Any]:
    messages = []
    parent = "00000000-0000-4000-8000-000000000000"

    def add(name: str, sender: str, text: str, at: datetime, parent: str) -> None:
        blocks = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": text}]
        messages.append(
            {
                "uuid": name,
                "sender": sender,
                "text": text,
                "content": blocks,
                "created_at": _iso(at),
                "attachments": [],
                "files": [],
                "parent_message_uuid": parent,
            }
        )

    for said in chat.turns:
        add(said.id, "human", said.prompt, said.at, parent)
        for n, answer in enumerate(said.answers):
            at = said.at + timedelta(seconds=1 + n)
            add(f"{said.id}-a{n}", "assistant", answer, at, said.id)
            parent = f"{said.id}-a{n}"
    return {
        "uuid": chat.id,
        "name": chat.title,
        "created_at": _iso(START),
        "account": {"uuid": "account"},
        "chat_messages": messages,
    }


def grok(chats: Sequence[Chat], *, mongo: bool = True) -> bytes:
    def time(at: datetime) -> Any:
        milliseconds = str(int(at.timestamp() * 1000))
        return {"$date": {"$numberLong": milliseconds}} if mongo else _iso(at)

    def record(chat: Chat) -> dict[str, Any]:
        said = []
        for turn in chat.turns:
            said.append((turn.id, "human", turn.prompt, turn.at, None))
            said += [
                (f"{turn.id}-a{n}", "ASSISTANT", text, turn.at + timedelta(seconds=1), turn.model)
                for n, text in enumerate(turn.answers)
            ]
        names = ("_id", "sender", "message", "create_time", "model")
        responses = [
            {"response": dict(zip(names, (i, sender, text, time(at), model), strict=True))}
            for i, sender, text, at, model in said
        ]
        about = {"id": chat.id, "title": chat.title, "create_time": _iso(START)}
        return {"conversation": about, "responses": responses}

    return json.dumps({"conversations": [record(chat) for chat in chats]}).encode()


def gemini(chats: Sequence[Chat], verb: str = "Prompted ") -> bytes:
    """Newest first, and of each chat only the address."""
    entries = [
        {
            "header": "Gemini Apps",
            "title": verb + said.prompt,
            "time": _iso(said.at),
            "products": ["Gemini Apps"],
            "safeHtmlItem": [{"html": f"<p>{escape(answer)}</p>"} for answer in said.answers],
            "details": [{"url": f"https://gemini.google.com/app/{chat.id}"}],
        }
        for chat in chats
        for said in chat.turns
    ]
    return json.dumps(sorted(entries, key=lambda entry: str(entry["time"]), reverse=True)).encode()


def gemini_html(chats: Sequence[Chat]) -> bytes:
    cells = [
        '<div class="outer-cell mdl-cell"><div class="mdl-grid"><div class="header-cell">'
        '<p class="mdl-typography--title">Gemini Apps<br></p></div>'
        '<div class="content-cell mdl-cell mdl-typography--body-1">Prompted&nbsp;'
        f"{escape(said.prompt)}<br>{said.at:%b %-d, %Y, %-I:%M:%S}\u202f{said.at:%p} UTC<br>"
        f"{''.join(f'<p>{escape(answer)}</p>' for answer in said.answers)}</div>"
        '<div class="content-cell mdl-cell mdl-typography--text-right"></div></div></div>'
        for chat in reversed(chats)
        for said in reversed(chat.turns)
    ]
    style = "<style>.outer{color:red}</style>"
    return f"<html><head>{style}</head><body>{''.join(cells)}</body></html>".encode()


def perplexity(chats: Sequence[Chat]) -> bytes:
    threads = [
        {
            "context_uuid": chat.id,
            "context_title": chat.title,
            "created_at": _iso(START),
            "entries": [
                {
                    "uuid": said.id,
                    "query": said.prompt,
                    "answer": "".join(said.answers),
                    "created_at": _iso(said.at),
                }
                for said in chat.turns
            ],
        }
        for chat in chats
    ]
    return json.dumps({"conversations": threads}).encode()


def jsonl(chats: Sequence[Chat]) -> bytes:
    lines = [
        {
            "message_id": said.id,
            "prompt": said.prompt,
            "response": "".join(said.answers) or None,
            "provider": "chatgpt",
            "model": said.model,
            "occurred_at": _iso(said.at),
            "conversation_id": chat.id,
            "conversation_title": chat.title,
        }
        for chat in chats
        for said in chat.turns
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


FORMATS = {
    "chatgpt": chatgpt,
    "claude": claude,
    "gemini": gemini,
    "grok": grok,
    "perplexity": perplexity,
    "jsonl": jsonl,
}


def chats(count: int, turns: int = 2, prefix: str = "c") -> list[Chat]:
    """Chats of plain words, none of them alike."""
    return [
        Chat(
            f"{prefix}{c}",
            f"Chat {c}",
            tuple(
                Said(
                    f"question {prefix}{c} {t}",
                    (f"answer {prefix}{c} {t}",),
                    START + timedelta(hours=c, minutes=t),
                    f"{prefix}{c}-m{t}",
                    "model-1",
                )
                for t in range(turns)
            ),
        )
        for c in range(count)
    ]
