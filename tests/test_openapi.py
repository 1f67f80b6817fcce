"""Whatever a stranger's program sends, the answer is one that the OpenAPI document names."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server, sign_up

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "negative_data_rejection",
    "ignored_auth",
)
# Without a model provider some routes answer 503 or 502, which is no fault.
CONFIG = '[checks]\nnot_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "502", "503"]\n'
# These end the session or the account that the other requests are made with.
LEFT_OUT = r"/auth/v1/(logout|user)|/account"


async def test_the_service_keeps_to_its_own_document(
    make_server: Callable[..., Server], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """`--examples` is how many cases each operation is given."""
    examples = str(pytestconfig.getoption("--examples") or 15)
    nobody = "http://127.0.0.1:9"  # keys that are made up are shown to no provider
    server = make_server(OPENAI_BASE_URL=nobody, ANTHROPIC_BASE_URL=nobody)
    await asyncio.to_thread(server.wait_until_ready)
    async with httpx.AsyncClient(base_url=server.url) as client:
        user = await sign_up(client, "fuzz")
    command = [
        *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"),
        f"{server.url}/openapi.json",
        *("--header", f"Authorization: {user['Authorization']}"),
        *("--exclude-path-regex", LEFT_OUT),
        *("--checks", ",".join(CHECKS), "--max-examples", examples, "--seed", "1"),
        *("--suppress-health-check", "all", "--no-color"),
    ]
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    run = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await run.communicate()
    print(output.decode()[-1_500:])
    assert run.returncode == 0, output.decode()[-8_000:]
