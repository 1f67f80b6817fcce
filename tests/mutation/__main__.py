"""How many small faults the suite notices, where a fault would cost the most; see `make mutation`.

usage: python -m tests.mutation [--part NAME] [--sample N] [--seed N] [--jobs N]

Each fault stands in a copy of the service, on which the tests of its part run in a process of
their own; one that fails, or does not end, has noticed it. Postgres is real and shared by the runs.
"""

import argparse
import asyncio
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil
import pytest

from core.config import ROOT
from storage.embedded_postgres import embedded_postgres
from storage.migrate import migrate
from tests.mutation.mutants import Mutant
from tests.mutation.parts import EQUIVALENT, PARTS, Part

BOUND = 80
# The plugins that were imported before the fork are not rewritten, and need not be.
TOO_EARLY = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
OURS = ("core", "storage", "routers", "main", "tests")
# Loaded once and not in each of hundreds of processes.
HEAVY = (
    *("fastapi", "faiss", "httpx", "jwt", "playwright.async_api", "pytest"),
    *("pydantic_settings", "asgi_lifespan", "redis.asyncio", "structlog", "uvicorn", "orjson"),
)
WITHOUT_SECOND_WALL = """
    DO $$ DECLARE t regclass; BEGIN
        FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relrowsecurity
        LOOP EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', t); END LOOP;
    END $$
"""


@dataclass
class Result:
    part: Part
    noticed: int = 0
    equivalent: int = 0
    missed: list[Mutant] = field(default_factory=list)

    @property
    def score(self) -> float:
        return 100 * self.noticed / max(self.noticed + len(self.missed), 1)


@dataclass
class Run:
    """One mutant in one copy of the service."""

    mutant: Mutant | None
    tree: Path
    original: str
    began: float


async def serve_postgres(second_wall: bool) -> None:
    """Hold a cluster with its template, as the suite does, until the one who asked is gone."""
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # noqa: ASYNC240 - nothing else runs yet
        async with embedded_postgres(Path(folder) / "data", lambda _: None) as url:
            template = url.replace("/memory_layer", "/template", 1)
            conn = await asyncpg.connect(url)
            await conn.execute("CREATE DATABASE template")
            await conn.close()
            await migrate(template)
            if not second_wall:
                conn = await asyncpg.connect(template)
                await conn.execute(WITHOUT_SECOND_WALL)
                await conn.close()
            print(url, flush=True)
            await asyncio.to_thread(sys.stdin.read)


@contextmanager
def cluster(part: Part) -> Iterator[tuple[str, ...]]:
    """Yield the option that names a running Postgres; none where the schema itself is changed."""
    if part.postgres == "own":
        yield ()
        return
    command = [sys.executable, "-m", "tests.mutation", "--postgres", part.postgres]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout and process.stdin
        yield ("--cluster", process.stdout.readline().strip())
        process.stdin.close()


@contextmanager
def copies(count: int) -> Iterator[list[Path]]:
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = [Path(folder) / str(n) for n in range(count)]
        for tree in trees:
            tree.mkdir()
            for name in ("core", "storage", "routers", "tests", "docs", "admin"):
                ignored = shutil.ignore_patterns("node_modules", "__pycache__")
                shutil.copytree(ROOT / name, tree / name, ignore=ignored)
            for name in ("main.py", "pyproject.toml", "README.md"):
                shutil.copy(ROOT / name, tree)
            for name in ("models", ".venv"):
                (tree / name).symlink_to((ROOT / name).resolve())
        yield trees


def start(run: Run, part: Part, options: tuple[str, ...]) -> int:
    """Fork, so that what is not ours is imported once. Return the process's id."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.chdir(run.tree)
    output = os.open(run.tree / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    sys.path[:] = [str(run.tree), *(p for p in sys.path if p not in ("", str(ROOT)))]
    code = 3
    try:
        plain = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *TOO_EARLY)
        code = int(pytest.main([*plain, *options, *part.tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def outcome(pid: int, run: Run, limit: float) -> int | None:
    """The exit code of a run that has ended; one that takes too long is ended as noticed."""
    done, status = os.waitpid(pid, os.WNOHANG)
    if not done and time.monotonic() - run.began < limit:
        return None
    # A Postgres of its own has a session of its own.
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if not done:
        os.waitpid(pid, 0)
        return 1
    return os.waitstatus_to_exitcode(status)


def baseline(part: Part, tree: Path, options: tuple[str, ...]) -> float:
    """The seconds that the tests take on the service as it is, which they have to pass."""
    run = Run(None, tree, "", time.monotonic())
    pid = start(run, part, options)
    while (code := outcome(pid, run, 600)) is None:
        time.sleep(0.05)
    if code:
        said = (tree / "output").read_text()[-2_000:]
        raise SystemExit(f"{said}\n{part.name}: the tests fail on the service as it is")
    return time.monotonic() - run.began


def judge(part: Part, chosen: list[Mutant], trees: list[Path]) -> Result:
    result = Result(part)
    with cluster(part) as options:
        limit = 20 + 5 * baseline(part, trees[0], options)
        waiting, free = list(chosen), list(trees)
        running: dict[int, Run] = {}
        while waiting or running:
            while waiting and free:
                mutant, tree = waiting.pop(), free.pop()
                original = (tree / mutant.path).read_text()
                (tree / mutant.path).write_text(mutant.text)
                run = Run(mutant, tree, original, time.monotonic())
                running[start(run, part, options)] = run
            for pid, run in list(running.items()):
                if (code := outcome(pid, run, limit)) is not None:
                    del running[pid]
                    free.append(run.tree)
                    assert run.mutant
                    (run.tree / run.mutant.path).write_text(run.original)
                    note(result, run.mutant, survived=code == 0)
            time.sleep(0.02)
    return result


def note(result: Result, mutant: Mutant, *, survived: bool) -> None:
    if not survived:
        result.noticed += 1
    elif (mutant.path, mutant.what) in EQUIVALENT:
        result.equivalent += 1
    else:
        result.missed.append(mutant)
        print(f"missed: {mutant}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=[part.name for part in PARTS])
    parser.add_argument("--sample", type=int, default=0, help="so many of each part, not all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--postgres", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.postgres:
        asyncio.run(serve_postgres(options.postgres == "shared"))
        return 0
    for name in HEAVY:
        importlib.import_module(name)
    results = []
    print("| | faults | noticed | equivalent | score, % | bound |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    with copies(options.jobs) as trees:
        for part in PARTS:
            if options.part in (None, part.name):
                mutants = part.mutants()
                count = min(options.sample or len(mutants), len(mutants))
                chosen = random.Random(options.seed).sample(mutants, count)
                result = judge(part, chosen, trees)
                of = f"{count} of {len(mutants)}" if count < len(mutants) else f"{count}"
                print(
                    f"| {part.name} | {of} | {result.noticed} | {result.equivalent} |"
                    f" **{result.score:.1f}** | {BOUND} |",
                    flush=True,
                )
                results.append(result)
    return 1 if any(result.score < BOUND for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
