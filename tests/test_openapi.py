"""Whatever a stranger's program sends, the answer is one that the OpenAPI document names."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.config import ROOT
from main import create_app
from tests.answering import answering_server
from tests.conftest import INHERITED

# At home nobody is ever missing at Supabase.
NEVER_DONE = {"POST /admin/api/missing-users/{user_id}/erase"}


# Two parts side by side, as schemathesis' own threads fail each other. Nothing leads from one to
# the other, so that its chains of requests stay whole.
ACCESS = "^/(account|admin|auth|mcp|tokens|usage|v1)"
PARTS = {"access": ("--include-path-regex", ACCESS), "rest": ("--exclude-path-regex", ACCESS)}


async def test_the_service_keeps_to_its_own_document(
    cluster: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """`--examples` is how many cases each operation is given, `--seed` which."""
    examples = str(pytestconfig.getoption("--examples") or 15)
    seed = str(pytestconfig.getoption("--seed"))
    settings = {"ADMIN_SIGN_INS_PER_MINUTE": "1000000", "ACCESS_TOKEN_SECONDS": "86400"}
    async with answering_server(cluster, **settings) as (server, _, _):
        runs = (
            fuzz(tmp_path / name, server.url, *part, "--max-examples", examples, "--seed", seed)
            for name, part in PARTS.items()
        )
        ended = await asyncio.gather(*runs)
    answers: dict[str, dict[str, int]] = {}
    for name, code in zip(PARTS, ended, strict=True):
        said = (tmp_path / name / "output.txt").read_text()
        print(said[-2_000:])
        assert code == 0, said[-8_000:]
        answers |= json.loads((tmp_path / name / "answers.json").read_text())
    for label, statuses in sorted(answers.items()):
        print(f"{label:70}", *(f"{status}: {n}" for status, n in sorted(statuses.items())))
    everything_was_done(answers)


async def fuzz(folder: Path, address: str, *options: str) -> int:
    """Return what the run ended with; what it said and found lies in the folder then."""
    folder.mkdir()  # noqa: ASYNC240 - once
    with (folder / "output.txt").open("wb") as output:
        run = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.fuzzing", address, *options),
            cwd=folder,
            env=INHERITED | {"PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        return await run.wait()


def everything_was_done(answers: dict[str, dict[str, int]]) -> None:
    """What is refused at the door says nothing about the room."""
    documented = {
        f"{method.upper()} {path}"
        for path, operations in create_app().openapi()["paths"].items()
        for method in operations
    }
    done = {label for label, statuses in answers.items() if any(s < "300" for s in statuses)}
    assert documented - done == NEVER_DONE
    assert not any("429" in statuses for statuses in answers.values())
