"""The sites' streams as bytes; synthetic, in the shapes that the sites send."""

import json
from collections.abc import Sequence
from typing import Any


def sse(*events: Any) -> str:
    return "".join(
        f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events
    )


def gpt_message(chat: str, message_id: str, role: str, **more: Any) -> dict[str, Any]:
    message = {
        "id": message_id,
        "author": {"role": role},
        "status": "in_progress",
        "recipient": "all",
        "content": {"content_type": "text", "parts": [""]},
        "metadata": {"model_slug": "gpt-9"},
    }
    return {"message": message | more, "conversation_id": chat}


def chatgpt(chat: str, asked: str, answered: str, pieces: Sequence[str]) -> str:
    text = "/message/content/parts/0"
    thoughts = {"content_type": "thoughts", "parts": [""]}
    said = [{"v": piece} for piece in pieces[1:]]
    return 'event: delta_encoding\ndata: "v1"\n\n' + sse(
        {"type": "resume_conversation_token", "token": "t", "conversation_id": chat},
        {"p": "", "o": "add", "v": gpt_message(chat, asked, "user")},
        {"v": gpt_message(chat, asked + "-t", "assistant", content=thoughts)},
        {"p": text, "o": "append", "v": "reasoning that is not the answer"},
        {"v": gpt_message(chat, answered, "assistant", channel="final")},
        {"p": text, "o": "append", "v": pieces[0]},
        *said,
        {
            "p": "",
            "o": "patch",
            "v": [{"p": "/message/status", "o": "replace", "v": "finished_successfully"}],
        },
        {"type": "message_stream_complete", "conversation_id": chat},
        {"type": "title_generation", "title": f"Title of {chat}", "conversation_id": chat},
        "[DONE]",
    )


def chatgpt_cut_off(chat: str, asked: str, answered: str, text: str) -> str:
    """An answer that was as long as an answer may be."""
    cut = {"status": "finished_partial_completion"}
    content = {"content_type": "text", "parts": [text]}
    return 'event: delta_encoding\ndata: "v1"\n\n' + sse(
        {"p": "", "o": "add", "v": gpt_message(chat, asked, "user")},
        {"v": gpt_message(chat, answered, "assistant", channel="final", content=content, **cut)},
        {"type": "message_stream_complete", "conversation_id": chat},
        "[DONE]",
    )


def chatgpt_handoff(chat: str, asked: str) -> str:
    return 'event: delta_encoding\ndata: "v1"\n\n' + sse(
        {"type": "resume_conversation_token", "token": "t", "conversation_id": chat},
        {"p": "", "o": "add", "v": gpt_message(chat, asked, "user")},
        {"type": "stream_handoff", "conversation_id": chat},
        "[DONE]",
    )


def chatgpt_socket(chat: str, stream: str) -> list[str]:
    def frame(item: str) -> str:
        payload = {"type": "stream-item", "conversation_id": chat, "encoded_item": item}
        outer = {"type": "conversation-turn-stream", "payload": payload}
        return json.dumps([{"type": "message", "topic_id": "t", "payload": outer}])

    return [frame(item + "\n\n") for item in stream.split("\n\n") if item]


def chatgpt_history(chat: str, turns: Sequence[tuple[str, str, str, str]]) -> dict[str, Any]:
    """`turns`: id and text of each prompt, id and text of its answer."""
    mapping: dict[str, Any] = {}
    for asked, prompt, answered, answer in turns:
        for message_id, role, text, children in (
            (asked, "user", prompt, [answered]),
            (answered, "assistant", answer, []),
        ):
            content = {"content_type": "text", "parts": [text]}
            whole = gpt_message(
                chat, message_id, role, content=content, status="finished_successfully"
            )
            mapping[message_id] = {"message": whole["message"], "children": children}
    return {"title": f"Title of {chat}", "conversation_id": chat, "mapping": mapping}


def claude(chat: str, asked: str, answered: str, pieces: Sequence[str]) -> str:
    def delta(index: int, kind: str, name: str, text: str) -> dict[str, Any]:
        return {
            "type": "content_block_delta",
            "index": index,
            "delta": {"type": kind, name: text},
        }

    events = [
        {
            "type": "message_start",
            "message": {"uuid": answered, "parent_uuid": asked, "model": "claude-9"},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}},
        delta(0, "thinking_delta", "thinking", "not the answer"),
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        *(delta(1, "text_delta", "text", piece) for piece in pieces),
        {"type": "message_limit", "message_limit": {"type": "within_limit"}},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {e['type']}\r\ndata: {json.dumps(e)}\r\n\r\n" for e in events)


def gemini(chat: str, asked: str, answered: str, pieces: Sequence[str]) -> str:
    def frame(rows: Any) -> str:
        text = json.dumps(rows, ensure_ascii=False)
        units = len(text.encode("utf-16-le", "surrogatepass")) // 2
        return f"{units + 2}\n{text}\n"

    def so_far(text: str, more: Any = None) -> str:
        inner = [None, [chat, asked], more, None, [[answered, [text]], ["rc_x", ["a draft"]]]]
        return frame([["wrb.fr", None, json.dumps(inner, ensure_ascii=False)]])

    # Whole texts, growing: a thousand of them would be megabytes.
    steps = range(1, len(pieces), max(1, len(pieces) // 20))
    grown = [so_far("".join(pieces[:n])) for n in steps]
    last = so_far("".join(pieces), {"11": [f"Title of {chat}"], "44": True})
    return ")]}'\n\n" + "".join(grown) + last + frame([["e", 4, None, None, 99]])


def grok(chat: str, asked: str, answered: str, pieces: Sequence[str], *, first: bool) -> str:
    def line(response: dict[str, Any]) -> str:
        result = {"response": response} if first else response
        return json.dumps({"result": result}) + "\n"

    opening = {"result": {"conversation": {"conversationId": chat}}}
    said = {"isThinking": False, "messageTag": "final", "responseId": answered}
    told = [said | {"token": piece} for piece in pieces]
    whole = {"responseId": answered, "message": "".join(pieces), "model": "grok-9"}
    return (json.dumps(opening) + "\n" if first else "") + "".join(
        map(
            line,
            [
                {"userResponse": {"responseId": asked, "message": "…", "sender": "human"}},
                {"token": "not the answer", "isThinking": True, "messageTag": "header"},
                *told,
                {"modelResponse": whole},
            ],
        )
    )


def xgrok(chat: str, asked: str, answered: str, pieces: Sequence[str]) -> str:
    said = {"sender": "ASSISTANT", "messageTag": "final"}
    lines: list[Any] = [
        {"conversationId": chat, "userChatItemId": asked, "agentChatItemId": answered},
        {"result": said | {"message": "not the answer", "isThinking": True}},
        *({"result": said | {"message": piece}} for piece in pieces),
        {"result": {"isSoftStop": True}},
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)
