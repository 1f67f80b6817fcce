"""How many small faults the suite notices, where a fault would cost the most; see `make mutation`.

usage: python -m tests.mutation [--part NAME] [--sample N] [--seed N] [--jobs N]

Each fault stands in a copy of the service, on which the tests of its part run in a process of
their own; one that fails has noticed it. Postgres is real, one for each copy. A run whose end
may come of the machine instead (it waited in vain, was killed, did not end, or stood still with the
whole machine) counts only when it ends so again. Among them run copies in which nothing was
changed: where one of these fails, nothing is reported.
"""

import argparse
import asyncio
import importlib
import os
import random
import sys
from contextlib import closing
from dataclasses import dataclass, field

from tests.mutation.mutants import UNCHANGED, Mutant
from tests.mutation.parts import EQUIVALENT, PARTS, Part
from tests.mutation.runs import HEAVY, Run, Runs, serve_postgres, trees

BOUND = 80
LONGEST = 900.0  # seconds that a part's tests may take on the service as it is
ONE_UNCHANGED_FOR = 10


@dataclass
class Result:
    part: Part
    noticed: int = 0
    equivalent: int = 0
    unchanged: int = 0
    missed: list[Mutant] = field(default_factory=list)

    @property
    def score(self) -> float:
        return 100 * self.noticed / max(self.noticed + len(self.missed), 1)

    def note(self, run: Run) -> None:
        mutant = run.mutant
        if mutant.what == UNCHANGED:
            if run.code != 0:
                said = run.output[-3_000:]
                raise SystemExit(f"{said}\n{self.part.name}: fails on the service as it is")
            self.unchanged += 1
        elif run.code != 0:
            self.noticed += 1
            say(f"noticed by {run.noticed_by}: {mutant}")
        elif mutant.key in EQUIVALENT:
            self.equivalent += 1
            say(f"equivalent: {mutant}")
        else:
            self.missed.append(mutant)
            say(f"missed: {mutant}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def judge(part: Part, chosen: list[Mutant], jobs: int, seed: int) -> Result:
    result = Result(part)
    with trees(part, jobs) as copies, closing(Runs(part, copies)) as runs:
        # As many at a time as later, so that they take as long.
        for _ in copies:
            runs.begin(part.unchanged()[0])
        slowest = 0.0
        while runs.any:
            for run in runs.ended(LONGEST):
                result.note(run)
                slowest = max(slowest, run.seconds)
        waiting = mixed(chosen, part.unchanged(), random.Random(seed))
        doubted: list[Mutant] = []
        while waiting or runs.any:
            while waiting and runs.has_room:
                runs.begin(waiting.pop())
            for run in runs.ended(60 + 3 * slowest):
                is_first = run.stood_still or run.mutant not in doubted
                if run.code != 0 and run.doubt and is_first:
                    say(f"again, {run.doubt} in {run.noticed_by}: {run.mutant}")
                    doubted.append(run.mutant)
                    waiting.append(run.mutant)
                else:
                    result.note(run)
    return result


def mixed(chosen: list[Mutant], unchanged: list[Mutant], random: random.Random) -> list[Mutant]:
    """With the service as it is at the end, and now and then before."""
    found = list(chosen)
    for _ in range(len(chosen) // ONE_UNCHANGED_FOR):
        found.insert(random.randrange(len(found)), random.choice(unchanged))
    # They are taken from the end.
    return [unchanged[-1], *found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=[part.name for part in PARTS])
    parser.add_argument("--sample", type=int, default=0, help="so many of each part, not all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--postgres", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.postgres:
        second_wall = options.postgres != "without row-level security"
        asyncio.run(serve_postgres(second_wall=second_wall))
        return 0
    gone = set(EQUIVALENT) - {mutant.key for part in PARTS for mutant in part.mutants()}
    if gone:
        raise SystemExit(f"no such fault any more: {gone}")
    for name in HEAVY:
        importlib.import_module(name)
    results = []
    print("| | faults | noticed | missed | equivalent | unchanged passed | score, % | bound |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for part in PARTS:
        if options.part in (None, part.name):
            mutants = part.mutants()
            count = min(options.sample or len(mutants), len(mutants))
            chosen = random.Random(options.seed).sample(mutants, count)
            result = judge(part, chosen, options.jobs, options.seed)
            of = f"{count} of {len(mutants)}" if count < len(mutants) else f"{count}"
            print(
                f"| {part.name} | {of} | {result.noticed} | {len(result.missed)} |"
                f" {result.equivalent} | {result.unchanged} |"
                f" **{result.score:.1f}** | {BOUND} |",
                flush=True,
            )
            results.append(result)
    return 1 if any(result.score < BOUND for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
