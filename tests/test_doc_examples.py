"""Whoever copies an example from the documents gets an answer."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from core.config import ROOT
from tests.answering import answering_server, remember
from tests.conftest import Server, issue_token, sign_up
from tests.doc_examples import Example, examples_in, run

DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "api.md")
# `make run` starts a server; the others ask one.
EXAMPLES = [e for path in DOCUMENTS for e in examples_in(path) if "URL" in e.code]


@pytest.fixture(scope="module")
async def example_server(cluster: str) -> AsyncIterator[Server]:
    """With model providers, which the README's reader may have or not."""
    async with answering_server(cluster) as (server, _, _):
        yield server


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
async def test_an_example_of_the_documents_works(
    example_server: Server, example: Example, tmp_path: Path
) -> None:
    """ACCESS_TOKEN is that of somebody who signed in, TOKEN a personal one."""
    async with httpx.AsyncClient(base_url=example_server.url, timeout=30) as client:
        reader = await sign_up(client, "reader")
        program = await issue_token(client, reader)
        await remember(client, program, "How did I sort that list, the way I like it?")
    tokens = {
        "ACCESS_TOKEN": reader["Authorization"].removeprefix("Bearer "),
        "TOKEN": program["Authorization"].removeprefix("Bearer "),
    }

    printed = await asyncio.to_thread(run, example, tmp_path, example_server.url, **tokens)

    assert printed.strip()
    assert '"success":false' not in printed
