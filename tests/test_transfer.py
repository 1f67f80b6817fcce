"""From a shell, a person brings a past to a server and takes it away again."""

import asyncio
import subprocess
import sys
import zipfile

import httpx
import pytest

from core.config import ROOT
from tests.conftest import PASSWORD, sign_up
from tests.exports import chats, claude


@pytest.fixture
async def person(live_server):
    async with httpx.AsyncClient(base_url=live_server) as client:
        headers = await sign_up(client, "carol")
        email = (await client.get("/auth/v1/user", headers=headers)).json()["email"]
    return email, headers["Authorization"].removeprefix("Bearer ")


async def shell(*arguments, typed=""):
    def run():
        return subprocess.run(
            [sys.executable, "main.py", *map(str, arguments)],
            cwd=ROOT,
            input=typed,
            capture_output=True,
            text=True,
            # Without a terminal passwords are read from standard input.
            start_new_session=True,
            timeout=60,
        )

    return await asyncio.to_thread(run)


async def test_a_past_is_brought_and_taken_from_a_shell(live_server, person, tmp_path):
    email, token = person
    chosen = tmp_path / "data.zip"
    chosen.write_bytes(claude(chats(3)))
    taken, sealed = tmp_path / "mine.zip", tmp_path / "sealed.zip.age"
    server = ("--server", live_server)

    brought = await shell("import", chosen, *server, "--email", email, typed=f"{PASSWORD}\n")
    again = await shell("import", chosen, *server, "--token", token)
    plain = await shell("export", taken, *server, "--token", token)
    typed = "a passphrase\na passphrase\n"
    locked = await shell("export", sealed, *server, "--token", token, "--encrypt", typed=typed)
    opened = await shell("decrypt", sealed, typed="a passphrase\n")

    assert brought.returncode == 0, brought.stderr
    assert brought.stdout == (
        "done: 6 turns found = 6 imported + 0 here already + 0 skipped + 0 failed\n"
    )
    assert "100 %" in brought.stderr
    assert "0 imported + 6 here already" in again.stdout
    assert [run.returncode for run in (plain, locked, opened)] == [0, 0, 0], locked.stderr
    for name in (taken, tmp_path / "sealed.zip"):
        with zipfile.ZipFile(name) as archive:
            assert len(archive.read("memories.jsonl").splitlines()) == 6
        assert name.stat().st_mode & 0o077 == 0


async def test_what_cannot_be_done_is_said_in_one_sentence(live_server, person, tmp_path):
    _, token = person
    chosen = tmp_path / "notes.txt"
    chosen.write_text("not an export")
    server = ("--server", live_server)

    useless = await shell("import", chosen, *server, "--token", token)
    nobody = await shell(
        "import", chosen, *server, "--email", "x@example.com", typed="wrong pass\n"
    )
    missing = await shell("import", tmp_path / "none", *server, "--token", token)
    nowhere = await shell("export", chosen, "--server", "http://127.0.0.1:9", "--token", token)
    no_key = await shell("decrypt", chosen, "--to", tmp_path / "out", typed="x\n")

    assert "This is no export that can be read. Expected: ChatGPT" in useless.stdout
    assert "are not known there" in nobody.stderr
    assert "No such file" in missing.stderr
    assert "There is no server at" in nowhere.stderr
    assert "no file that was encrypted" in no_key.stderr
    for run in (useless, nobody, missing, nowhere, no_key):
        assert run.returncode == 1
        assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()
    assert chosen.read_text() == "not an export"
