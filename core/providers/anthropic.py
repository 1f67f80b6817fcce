"""Anthropic's messages."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from core.providers.format import Said, Sdk, at, count

DEFAULT_MOST_TOKENS = 4_096  # the protocol wants a number
INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")

# https://docs.anthropic.com/en/api/errors
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class AnthropicFormat:
    path = "/v1/messages"
    models_path = "/v1/models?limit=1000"

    def connect(self, base_url: str, api_key: str) -> Sdk:
        import anthropic

        client = anthropic.AsyncAnthropic(api_key=api_key, base_url=base_url, max_retries=0)
        return Sdk(client, anthropic.APIStatusError, anthropic.APIConnectionError)

    def request(
        self, model: str, messages: Sequence[Mapping[str, str]], most_tokens: int | None
    ) -> dict[str, Any]:
        rules = [message["content"] for message in messages if message["role"] == "system"]
        return {
            "model": model,
            "max_tokens": most_tokens or DEFAULT_MOST_TOKENS,
            "messages": [message for message in messages if message["role"] != "system"],
        } | ({"system": "\n\n".join(rules)} if rules else {})

    def streamed(self, body: dict[str, Any]) -> dict[str, Any]:
        return body | {"stream": True}

    def read_event(self, event: Any, said: Said) -> str:
        kind = at(event, "type")
        if kind == "content_block_delta":
            return said.add(at(event, "delta", "text"))
        if kind == "message_start":
            self._read_facts(at(event, "message"), said)
        elif kind == "message_delta":
            self._read_facts(event, said)
        elif kind == "message_stop":
            said.finished = True
        elif kind == "error":
            said.failed = True
        return ""

    def read_whole(self, document: Any, said: Said) -> str:
        self._read_facts(document, said)
        parts = at(document, "content")
        said.finished = isinstance(parts, list)
        said.failed = not said.finished
        return "".join(said.add(at(part, "text")) for part in parts or ())

    def failure(self, status: int, message: str, code: str) -> dict[str, Any]:
        kind = KINDS.get(status, KINDS[400] if status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": f"{message} ({code})"}}

    def failure_event(self, message: str, code: str) -> bytes:
        return b"event: error\ndata: %s\n\n" % orjson.dumps(self.failure(502, message, code))

    def _read_facts(self, document: Any, said: Said) -> None:
        if isinstance(model := at(document, "model"), str):
            said.model = model
        taken = sum(count(at(document, "usage", name)) for name in INPUT)
        said.input_tokens = taken or said.input_tokens
        said.output_tokens = count(at(document, "usage", "output_tokens")) or said.output_tokens
