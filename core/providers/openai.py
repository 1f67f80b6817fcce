"""OpenAI's chat completions, and all who speak them."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from core.providers.format import Said, Sdk, at, count

# https://platform.openai.com/docs/guides/error-codes
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class OpenAIFormat:
    path = "/chat/completions"
    models_path = "/models"

    def __init__(self, limit_name: str = "max_tokens") -> None:
        """OpenAI itself calls the limit of a reply otherwise than those who speak as it did."""
        self._limit_name = limit_name

    def connect(self, base_url: str, api_key: str) -> Sdk:
        import openai

        client = openai.AsyncOpenAI(api_key=api_key, base_url=base_url, max_retries=0)
        return Sdk(client, openai.APIStatusError, openai.APIConnectionError)

    def request(
        self, model: str, messages: Sequence[Mapping[str, str]], most_tokens: int | None
    ) -> dict[str, Any]:
        body: dict[str, Any] = {"model": model, "messages": list(messages)}
        return body | ({self._limit_name: most_tokens} if most_tokens else {})

    def streamed(self, body: dict[str, Any]) -> dict[str, Any]:
        return body | {"stream": True, "stream_options": {"include_usage": True}}

    def read_event(self, event: Any, said: Said) -> str:
        if at(event, "error") is not None:
            said.failed = True
        self._read_facts(event, said)
        if at(event, "choices", 0, "finish_reason"):
            said.finished = True
        if count(at(event, "choices", 0, "index")):
            return ""  # one of several replies that were asked for; the first is kept
        return said.add(at(event, "choices", 0, "delta", "content"))

    def read_whole(self, document: Any, said: Said) -> str:
        self._read_facts(document, said)
        said.finished = at(document, "choices", 0, "message") is not None
        said.failed = not said.finished
        return said.add(at(document, "choices", 0, "message", "content"))

    def failure(self, status: int, message: str, code: str) -> dict[str, Any]:
        kind = KINDS.get(status, KINDS[400] if status < 500 else "server_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def failure_event(self, message: str, code: str) -> bytes:
        return b"data: %s\n\n" % orjson.dumps(self.failure(502, message, code))

    def _read_facts(self, document: Any, said: Said) -> None:
        if isinstance(model := at(document, "model"), str):
            said.model = model
        said.input_tokens = count(at(document, "usage", "prompt_tokens")) or said.input_tokens
        spent = count(at(document, "usage", "completion_tokens"))
        said.output_tokens = spent or said.output_tokens
