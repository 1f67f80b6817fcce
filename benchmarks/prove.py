"""The short form of all evidence: faults, isolation, abuse, load, prices; one table, one status.

usage: python benchmarks/prove.py [--faults 100] [--users 1000] [--only NAME,NAME]

Each part is the command that its section of docs/benchmarks.md names, in its short form. A part
passes when its command does; its figures are the lines of its table that have a bound.
"""

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
PYTEST = (PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider")
SHOWN = re.compile(r"^\| (?P<what>[^|]+) \| (?P<figure>[^|]*) \| (?P<bound>[^|]+) \|", re.MULTILINE)
PASSED = re.compile(r"^.*\b(\d+ passed[^=\n]*)", re.MULTILINE)
LONGEST_SECONDS = 600


@dataclass(frozen=True)
class Part:
    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    figures: list[tuple[str, str, str]]
    passed: bool
    seconds: float
    output: str


def tests(*paths: str) -> tuple[str, ...]:
    return (*PYTEST, "-rN", "--no-header", *(f"tests/{path}" for path in paths))


def parts(faults: int, users: int) -> list[Part]:
    return [
        Part("faults", (PYTHON, "-m", "tests.faults", "--faults", str(faults))),
        Part("one fault at a time", tests("test_faults.py", "test_replicas.py")),
        Part("isolation", tests("test_isolation.py")),
        Part("tokens", tests("test_tokens.py", "test_api_tokens.py", "test_supabase.py")),
        Part("abuse", tests("test_abuse.py", "test_bad_input.py", "test_edges.py")),
        Part("hostile memories", tests("test_injection.py")),
        Part("its own OpenAPI document", tests("test_openapi.py")),
        Part("upgrade and restore", tests("test_database.py", "test_upgrade.py")),
        Part("load", (PYTHON, "benchmarks/load.py", "--users", str(users), "--seconds", "30")),
        Part("price of a save", (PYTHON, "benchmarks/http.py", "--rounds", "1", "--seconds", "6")),
        Part("price of tokens", (PYTHON, "benchmarks/tokens.py")),
        Part("price of being seen", (PYTHON, "benchmarks/observability.py")),
    ]


def run(part: Part) -> Outcome:
    began = time.monotonic()
    try:
        done = subprocess.run(
            part.command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
        output, passed = done.stdout, done.returncode == 0
    except subprocess.TimeoutExpired as error:
        output, passed = f"{error.output!r}\nno end after {LONGEST_SECONDS} s", False
    return Outcome(figures_in(output), passed, time.monotonic() - began, output)


def figures_in(output: str) -> list[tuple[str, str, str]]:
    """The lines of the tables that have a bound, or how many tests passed."""
    shown = [
        (m["what"], m["figure"].strip(" *"), m["bound"].strip()) for m in SHOWN.finditer(output)
    ]
    figures = [row for row in shown if row[2] not in ("", "bound", "---")]
    if not figures and (found := PASSED.search(output)):
        figures = [("tests", found[1].strip(), "all")]
    return figures


def line(part: Part, outcome: Outcome) -> list[str]:
    verdict = "pass" if outcome.passed else "**FAIL**"
    rows = outcome.figures or [("", "", "")]
    return [
        f"| {part.name if n == 0 else ''} | {what} | {figure} | {bound} | "
        f"{f'{verdict}, {outcome.seconds:.0f} s' if n == 0 else ''} |"
        for n, (what, figure, bound) in enumerate(rows)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--only", default="", help="names of parts, with commas between")
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name]
    failed = []
    print("| part | figure | measured | bound | |\n| --- | --- | --- | --- | --- |", flush=True)
    for part in parts(options.faults, options.users):
        if not wanted or part.name in wanted:
            outcome = run(part)
            print("\n".join(line(part, outcome)), flush=True)
            if not outcome.passed:
                failed.append((part.name, outcome.output))
    for name, output in failed:
        print(f"\n{name}:\n{output[-4_000:]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
