"""How much of the service the suite ran, lines and branches by folder; fails below the bound.

usage: python -m tests.covered, after `coverage combine`; see `make coverage`
"""

import json
import subprocess
import sys
from collections import Counter
from typing import Any

FOLDERS = ("core", "storage", "routers")
BOUND = 90.0
LEAST = 10  # of the files that miss most, which are named


def files() -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-m", "coverage", "json", "--quiet", "-o", "-"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name: file["summary"] for name, file in json.loads(run.stdout)["files"].items()}


def shares(summaries: list[dict[str, Any]]) -> tuple[float, float]:
    """Percent of lines, and of branches."""
    sums: Counter[str] = Counter()
    for summary in summaries:
        sums.update({key: value for key, value in summary.items() if isinstance(value, int)})
    return (
        100 * sums["covered_lines"] / sums["num_statements"],
        100 * sums["covered_branches"] / sums["num_branches"],
    )


def main() -> int:
    measured = files()
    short = False
    print("| | measured | bound |\n| --- | --- | --- |")
    for folder in FOLDERS:
        found = shares([s for name, s in measured.items() if name.startswith(f"{folder}/")])
        for what, share in zip(("lines", "branches"), found, strict=True):
            print(f"| {what} of `{folder}/` that the suite runs, % | {share:.1f} | {BOUND:.0f} |")
            short = short or share < BOUND
    missing = {n: s["missing_lines"] + s["missing_branches"] for n, s in measured.items()}
    for name in sorted(missing, key=lambda name: -missing[name])[:LEAST]:
        of = measured[name]
        print(f"{name} lacks {of['missing_lines']} lines and {of['missing_branches']} branches")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
