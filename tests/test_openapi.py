"""Whatever a stranger's program sends, the answer is one that the OpenAPI document names."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from core.config import ROOT
from main import create_app
from tests.answering import answering_server
from tests.conftest import INHERITED

# At home nobody is ever missing at Supabase.
NEVER_DONE = {"POST /admin/api/missing-users/{user_id}/erase"}


async def test_the_service_keeps_to_its_own_document(
    cluster: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """`--examples` is how many cases each operation is given."""
    examples = str(pytestconfig.getoption("--examples") or 15)
    settings = {"ADMIN_SIGN_INS_PER_MINUTE": "1000000", "ACCESS_TOKEN_SECONDS": "86400"}
    written = tmp_path / "output.txt"
    async with answering_server(cluster, **settings) as (server, _, _):
        with written.open("wb") as output:
            run = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.fuzzing", server.url),
                *("--max-examples", examples, "--seed", "1"),
                cwd=tmp_path,
                env=INHERITED | {"PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            await run.wait()
    answers = json.loads((tmp_path / "answers.json").read_text())
    for label, statuses in sorted(answers.items()):
        print(f"{label:70}", *(f"{status}: {n}" for status, n in sorted(statuses.items())))
    print(sum((Counter(statuses) for statuses in answers.values()), Counter()))
    said = written.read_text()
    print(said[-2_000:])
    assert run.returncode == 0, said[-8_000:]
    everything_was_done(answers)


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
