"""A part's tests on a copy of the service, in a process of their own."""

import asyncio
import importlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil
import pytest

from core.config import ROOT
from storage.embedded_postgres import embedded_postgres
from tests.mutation.mutants import Mutant
from tests.mutation.parts import Part

STOOD_STILL = 20.0  # seconds between two looks at the runs, in which they stood still too
OPTIONS = (
    *("-x", "--hypothesis-seed", "1"),
    # A time-out of a test's own would go on while the machine stands still.
    *("--timeout", "0"),
    # Of the plugins that are installed some take seconds to load.
    *("--disable-plugin-autoload", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin"),
    *("-p", "_hypothesis_pytestplugin", "-p", "pytest_timeout"),
    # Those that were imported before the fork are not rewritten, and need not be.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
OURS = ("core", "storage", "routers", "main", "tests")
# Loaded once and not in each of hundreds of processes.
HEAVY = (
    *("fastapi", "faiss", "httpx", "jwt", "playwright.async_api", "pytest"),
    *("pytest_asyncio.plugin", "hypothesis.stateful", "time_machine"),
    *("pydantic_settings", "asgi_lifespan", "redis.asyncio", "structlog", "uvicorn", "orjson"),
)
WAITED_IN_VAIN = re.compile(r"^E .*(?:Timeout|timed out|not ready after)", re.MULTILINE)
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
WITHOUT_SECOND_WALL = """
    DO $$ DECLARE t regclass; BEGIN
        FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relrowsecurity
        LOOP EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', t); END LOOP;
    END $$
"""


@dataclass(frozen=True)
class Tree:
    """A copy of the service, and the address of the Postgres that its tests use, if any."""

    path: Path
    cluster: str | None


@dataclass
class Run:
    """`seconds` are those in which it could run."""

    mutant: Mutant
    tree: Tree
    original: str
    pid: int = 0
    seconds: float = 0
    stood_still: bool = False
    code: int | None = None

    @property
    def output(self) -> str:
        return (self.tree.path / "output").read_text(errors="replace")

    @property
    def noticed_by(self) -> str:
        failed = FAILED.search(self.output)
        return failed[1] if failed else f"exit code {self.code}"

    @property
    def doubt(self) -> str | None:
        """Why what it ended with may be the machine's fault."""
        if self.stood_still:
            return "stood still"
        if self.code is None:
            return "did not end"
        if self.code != 1:
            return "could not begin, or was killed"
        return "waited in vain" if WAITED_IN_VAIN.search(self.output) else None


class Runs:
    """Those under way, one for each tree."""

    def __init__(self, part: Part, trees: list[Tree]) -> None:
        self._part = part
        self._free = list(trees)
        self._running: list[Run] = []
        self._looked = time.monotonic()

    @property
    def has_room(self) -> bool:
        return bool(self._free)

    @property
    def any(self) -> bool:
        return bool(self._running)

    def begin(self, mutant: Mutant) -> None:
        tree = self._free.pop()
        path = tree.path / mutant.path
        run = Run(mutant, tree, path.read_text())
        _put(path, mutant.text)
        run.pid = _start(tree, self._part)
        self._running.append(run)

    def ended(self, limit: float) -> Iterator[Run]:
        """Look once; a run that takes longer than `limit` is ended, and has no exit code."""
        time.sleep(0.02)
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        for run in list(self._running):
            run.seconds += min(passed, 1)
            run.stood_still |= passed > STOOD_STILL
            done, status = os.waitpid(run.pid, os.WNOHANG)
            if not done and run.seconds < limit:
                continue
            _end(run.pid)
            if done:
                run.code = os.waitstatus_to_exitcode(status)
            else:
                os.waitpid(run.pid, 0)
            _put(run.tree.path / run.mutant.path, run.original)
            self._running.remove(run)
            yield run
            self._free.append(run.tree)

    def close(self) -> None:
        for run in self._running:
            _end(run.pid)


def _put(path: Path, text: str) -> None:
    """Two faults of a length within a second would share what is compiled."""
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
    path.write_text(text)


def _start(tree: Tree, part: Part) -> int:
    """Fork, so that what is not ours is imported once. Return the process's id."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.chdir(tree.path)
    output = os.open(tree.path / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    sys.path[:] = [str(tree.path), *(p for p in sys.path if p not in ("", str(ROOT)))]
    code = 3
    try:
        options = [*OPTIONS]
        if tree.cluster:
            options += ["--cluster", tree.cluster]
            if part.postgres == "migrated anew":
                asyncio.run(renew_template(tree.cluster))
        code = int(pytest.main([*options, *part.tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _end(pid: int) -> None:
    """A Postgres or a server of its own may have a session of its own."""
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@contextmanager
def trees(part: Part, count: int) -> Iterator[list[Tree]]:
    """Each with a Postgres of its own: two runs that share one may want more connections than
    it has."""
    with ExitStack() as stack:
        paths = stack.enter_context(_copies(count))
        clusters: list[str | None] = [None] * count
        if part.postgres != "none":
            clusters = [stack.enter_context(_cluster(part)) for _ in range(count)]
        yield [Tree(path, url) for path, url in zip(paths, clusters, strict=True)]


@contextmanager
def _copies(count: int) -> Iterator[list[Path]]:
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        found = [Path(folder) / str(n) for n in range(count)]
        for tree in found:
            tree.mkdir()
            for name in ("core", "storage", "routers", "tests", "docs", "admin"):
                ignored = shutil.ignore_patterns("node_modules", "__pycache__")
                shutil.copytree(ROOT / name, tree / name, ignore=ignored)
            for name in ("main.py", "pyproject.toml", "README.md"):
                shutil.copy(ROOT / name, tree)
            for name in ("models", ".venv"):
                (tree / name).symlink_to((ROOT / name).resolve())
        yield found


@contextmanager
def _cluster(part: Part) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.mutation", "--postgres", part.postgres]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout and process.stdin
        yield process.stdout.readline().strip()
        process.stdin.close()


async def serve_postgres(*, second_wall: bool) -> None:
    """Hold a cluster with its template, as the suite does, until the one who asked is gone."""
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # noqa: ASYNC240 - nothing else runs yet
        async with embedded_postgres(Path(folder) / "data", lambda _: None) as url:
            template = await renew_template(url)
            if not second_wall:
                conn = await asyncpg.connect(template)
                await conn.execute(WITHOUT_SECOND_WALL)
                await conn.close()
            print(url, flush=True)
            await asyncio.to_thread(sys.stdin.read)


async def renew_template(url: str) -> str:
    template = url.replace("/memory_layer", "/template", 1)
    conn = await asyncpg.connect(url)
    await conn.execute("DROP DATABASE IF EXISTS template WITH (FORCE)")
    await conn.execute("CREATE DATABASE template")
    await conn.close()
    # After a fork it is the copy's that counts.
    migrations = importlib.import_module("storage.migrate")
    await migrations.migrate(template)
    return template
