"""The short form of all evidence: faults, isolation, abuse, load, prices; one table, one status.

usage: python benchmarks/prove.py [--faults 100] [--users 1000] [--only NAME,NAME]

Each part is the command that its section of docs/benchmarks.md names, in a short form. Every figure
is held to its bound here, as it is published there. Status 1 where one is missed. It takes less
than 20 minutes on two cores that have nothing else to do; beside other work times say nothing.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
LONGEST_SECONDS = 600
NUMBER = r"\**([\d.,e+]+)"


@dataclass(frozen=True)
class Figure:
    """`where` finds the number in what the command prints; of several the worst counts."""

    what: str
    where: str
    at_most: float | None = None
    at_least: float | None = None

    def of(self, output: str) -> "Row":
        found = re.findall(self.where, output, re.MULTILINE)
        bound = f"<= {self.at_most:g}" if self.at_most is not None else f">= {self.at_least:g}"
        if not found:
            return Row(self.what, "none", bound, False)
        values = [float(number.replace(",", "")) for number in found]
        if self.at_most is not None:
            return Row(self.what, f"{max(values):g}", bound, max(values) <= self.at_most)
        return Row(self.what, f"{min(values):g}", bound, min(values) >= (self.at_least or 0))


@dataclass(frozen=True)
class Row:
    what: str
    measured: str
    bound: str
    passed: bool

    def __str__(self) -> str:
        verdict = "pass" if self.passed else "**FAIL**"
        return f"| {self.what} | {self.measured} | {self.bound} | {verdict} |"


@dataclass(frozen=True)
class Part:
    name: str
    command: tuple[str, ...]
    figures: tuple[Figure, ...] = ()


# What is shown of the tests, by the file they stand in.
TESTS = {
    "one fault at a time": ("test_faults", "test_replicas"),
    "isolation: 10,000 steps of three people, every route, both walls": (
        *("test_isolation", "test_second_wall"),
    ),
    "forged and wrong tokens": ("test_tokens", "test_api_tokens", "test_supabase"),
    "abuse, bad input, connections that say nothing": (
        *("test_abuse", "test_bad_input", "test_edges"),
    ),
    "hostile memories": ("test_injection",),
    "its own OpenAPI document, fuzzed": ("test_openapi",),
    "upgrade, restore, roles": ("test_database", "test_upgrade", "test_restore"),
    "limits": ("test_limits",),
}


def script(name: str, *arguments: str) -> tuple[str, ...]:
    return (PYTHON, f"benchmarks/{name}.py", *arguments)


def parts(faults: int, users: int) -> list[Part]:
    return [
        Part(
            "faults",
            (PYTHON, "-m", "tests.faults", "--faults", str(faults)),
            (
                Figure("faults of all kinds", rf"^\| faults[^|]*\| {NUMBER}", at_least=faults),
                Figure("saves lost or altered", rf"lost or altered \| {NUMBER}", at_most=0),
                Figure("doubled or brought back", rf"^\| doubled[^|]*\| {NUMBER}", at_most=0),
                Figure("stale searches", rf"^\| stale[^|]*\| {NUMBER}", at_most=0),
                Figure("kill -9 of Postgres to a save, s", rf"^\| kill -9[^|]*\| {NUMBER}", 5),
            ),
        ),
        Part(
            "load",
            script("load", "--users", str(users), "--seconds", "30"),
            (
                Figure("failed", rf"requests, failed \| [\d,]+, {NUMBER}", at_most=0),
                Figure(
                    "p95, local embedder, ms",
                    rf"local embedder(?:.*\n){{1,4}}?\| p50[^|]*\| \S+ / {NUMBER}",
                    200,
                ),
                Figure(
                    "p95, remote embedder, ms",
                    rf"remote embedder(?:.*\n){{1,4}}?\| p50[^|]*\| \S+ / {NUMBER}",
                    50,
                ),
                Figure("achieved of offered", rf"offered \|.* = {NUMBER}", at_least=0.97),
            ),
        ),
        Part(
            "price of a save",
            script("http", "--rounds", "1", "--seconds", "6"),
            (Figure("CPU of a save / of a bare route", rf"per request: {NUMBER}", 2.0),),
        ),
        Part(
            "price of tokens",
            script("tokens"),
            (
                Figure(
                    "access token known, CPU us",
                    rf"^\| access token.*known: CPU µs \| {NUMBER}",
                    20,
                ),
                Figure(
                    "personal token known, CPU us",
                    rf"personal token that is known: CPU µs \| {NUMBER}",
                    20,
                ),
                Figure("personal token unknown, CPU ms", rf"is not: CPU ms \| {NUMBER}", 0.5),
            ),
        ),
        Part(
            "price of being seen",
            script("observability"),
            (
                Figure("the layer, CPU us a request", rf"^\| the .*a request \| {NUMBER}", 60),
                Figure("/metrics, CPU ms", rf"lines: CPU ms \| {NUMBER}", 5),
            ),
        ),
        Part(
            "limiter",
            script("limiter", "--short", "--rounds", "3", "--seconds", "2"),
            (
                Figure("calls / PING", rf"^\| ratio.*? \| {NUMBER}", at_least=1.0),
                Figure("in the process, CPU us a call", rf"CPU µs a call \| {NUMBER}", 5),
                Figure("Redis hangs: the first call, ms", rf"first call waits, ms \| {NUMBER}", 60),
                Figure("a call after that, ms", rf"after that, ms \| {NUMBER}", 1),
            ),
        ),
        Part(
            "search index",
            script("index", "--rounds", "3", *("--only", "scan"), *("--only", "http")),
            (
                Figure("codes against flat, times", rf"than IndexFlatIP \| {NUMBER}.*≥ 3", None, 3),
                Figure("recall@10 of codes", rf"recall@10[^|]*\| {NUMBER}", at_least=0.99),
                Figure("/search over HTTP, p50 ms", rf"over HTTP[^|]*\| {NUMBER}", 10),
                Figure("p95 ms", rf"^\| … p95 \| {NUMBER}", 25),
                Figure("the query's embedding, ms", rf"query's embedding[^|]*\| {NUMBER}", 3),
            ),
        ),
        Part(
            "embedder",
            script("embedding", "--rounds", "1", "--backlog", "5000", "--seconds", "6"),
            (
                Figure("8-bit / 32-bit, texts/s", rf"int8 / fp32 \| {NUMBER}", None, 2),
                Figure(
                    "save p95 beside a backlog / without", rf"^\| ratio \| {NUMBER} \| 1\.5", 1.5
                ),
            ),
        ),
        Part(
            "streams",
            script("proxy", "--memories", "400", "--seconds", "4", "--rounds", "15"),
            (
                Figure(
                    "added before the first token, p95 ms",
                    rf"memories: p50 / p95 ms \| \S+ / {NUMBER}",
                    30,
                ),
                Figure("of 200 streams broken", rf"that broke \| {NUMBER}", 0),
                Figure("CPU a chunk, ms", rf"CPU a chunk, ms \| {NUMBER}", 0.2),
                Figure("event-loop lag p99, ms", rf"most, ms \| \S+ / {NUMBER}", 20),
            ),
        ),
        Part(
            "import",
            script("import", "--megabytes", "60", "--seconds", "8"),
            (
                Figure("turns a second", rf"turns a second: {NUMBER}", at_least=2_000),
                Figure("resident memory, MB", rf"of the import: {NUMBER} MB", 300),
                Figure("save p95 during / before", rf"^save:.*ratio {NUMBER}", 1.5),
            ),
        ),
        Part(
            "panel",
            script("panel", "--rounds", "2", "--users", "2000", "--memories", "200000"),
            (Figure("first view, ms", rf"^first view: median {NUMBER}", 1_000),),
        ),
        Part(
            "page of one's own",
            script("web", "--rounds", "2"),
            (Figure("first view, ms", rf"^first view: median {NUMBER}", 1_000),),
        ),
        Part(
            "extension",
            ("env", "TURNS=100", "SEED=1", PYTHON, "-m", "tests.extension.soak"),
            (
                Figure("turns saved of 100", rf"^saved {NUMBER}", at_least=100),
                Figure("lost", rf"lost {NUMBER},", 0),
                Figure("doubled", rf"doubled {NUMBER},", 0),
                Figure("altered", rf"altered {NUMBER},", 0),
            ),
        ),
    ]


def run(command: tuple[str, ...]) -> tuple[str, bool]:
    pipe = subprocess.PIPE
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, timeout=LONGEST_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        said = (error.output or b"").decode(errors="replace")
        return f"{said}\nno end after {LONGEST_SECONDS} s", False
    return done.stdout.decode(errors="replace"), done.returncode == 0


def measure(part: Part) -> tuple[list[Row], str]:
    output, ended_well = run(part.command)
    rows = [figure.of(output) for figure in part.figures]
    if not ended_well and all(row.passed for row in rows):
        rows.append(Row("the command's own verdict", "not 0", "0", False))
    return rows, output


def test_everything() -> tuple[list[Row], str]:
    """All tests at once, since most of them wait more than they work."""
    files = [f"tests/{name}.py" for names in TESTS.values() for name in names]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        pytest = (PYTHON, "-m", "pytest", "-n", "3", "--dist", "loadfile", "-p", "no:cacheprovider")
        output, _ = run((*pytest, f"--junitxml={report}", *files))
        cases = list(counted(report)) if report.exists() else []
    passed = Counter(name for name, well in cases if well)
    failed = Counter(name for name, well in cases if not well)
    rows = []
    for what, names in TESTS.items():
        good, bad = (sum(count[name] for name in names) for count in (passed, failed))
        rows.append(Row(what, f"{good} pass, {bad} fail", "0 fail", bool(good) and not bad))
    return rows, output


def counted(report: Path) -> Iterator[tuple[str, bool]]:
    """The file of each test, and whether it passed; one that was skipped is neither."""
    for case in ET.parse(report).iter("testcase"):
        outcomes = {child.tag for child in case}
        if "skipped" not in outcomes:
            name = case.get("classname", "").split(".")[1]
            yield name, not outcomes & {"failure", "error"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--only", default="", help="names of parts, with commas between")
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name]
    steps: dict[str, Callable[[], tuple[list[Row], str]]] = {
        part.name: partial(measure, part) for part in parts(options.faults, options.users)
    }
    steps["tests"] = test_everything
    failed, began = [], time.monotonic()
    print("| | measured | bound | |\n| --- | --- | --- | --- |", flush=True)
    for name, step in steps.items():
        if not wanted or name in wanted:
            start = time.monotonic()
            rows, output = step()
            print(
                f"| **{name}**, {time.monotonic() - start:.0f} s | | | |",
                *rows,
                sep="\n",
                flush=True,
            )
            if not all(row.passed for row in rows):
                failed.append((name, output))
    print(f"\n{time.monotonic() - began:.0f} s in all", flush=True)
    for name, output in failed:
        print(f"\n{name}:\n{output[-3_000:]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
