"""usage: python -m tests.faults [--faults 1000] [--seed 1] [--saves 50000] [--minutes 30]"""

import argparse
import asyncio
import math
import sys

from tests.faults.storm import RECOVERY_BOUND, live_through


def main() -> int:
    parser = argparse.ArgumentParser(description="Live through a storm of faults, and check.")
    parser.add_argument("--faults", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--saves", type=int, default=0, help="spread over so many that are acknowledged"
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="and then it is over")
    options = parser.parse_args()
    report = asyncio.run(
        live_through(options.seed, options.faults, options.saves, options.minutes * 60)
    )
    print(f"seed {report.seed}, {report.seconds:.0f} s")
    print("\n| | measured | bound |\n| --- | --- | --- |")
    for row in report.rows():
        print(f"| {' | '.join(row)} |")
    print("\n" + "\n".join(f"{count:5} {kind}" for kind, count in sorted(report.faults.items())))
    print("\n".join(report.complaints[:50]))
    too_slow = max(report.calm_recoveries, default=0) > RECOVERY_BOUND
    return 1 if report.complaints or too_slow else 0


if __name__ == "__main__":
    sys.exit(main())
