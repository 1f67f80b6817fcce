"""Known vulnerabilities of what is installed; what could not be looked up is no pass.

usage: python -m tests.audit [pip] [npm], both without a name; ends with 1 for a finding, and with 2
where the data could not be reached.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from core.config import ROOT

LOCKED = ("extension", "tests/clients/supabase_js", "tests/clients/axe")
PIP_AUDIT = (sys.executable, "-m", "pip_audit", "--local", "--progress-spinner=off", "-f", "json")


class Audit(NamedTuple):
    of: str
    looked_up: int
    passed_over: int
    findings: list[str]

    @property
    def lacks(self) -> str:
        if not self.looked_up:
            return "NOT CHECKED: the data could not be reached"
        return f"NOT CHECKED: {self.passed_over} of them" if self.passed_over else ""


def pip_audit() -> Iterator[Audit]:
    """pip-audit itself ends with 0 where it passed over every package."""
    packages = json_of(PIP_AUDIT, ROOT).get("dependencies", [])
    skipped = sum("skip_reason" in package for package in packages)
    findings = [
        f"{package['name']} {package['version']}: {known['id']}"
        for package in packages
        for known in package.get("vulns", ())
    ]
    yield Audit("Python packages", len(packages) - skipped, skipped, findings)


def npm_audit() -> Iterator[Audit]:
    for folder in LOCKED:
        report = json_of(("npm", "audit", "--json"), ROOT / folder)
        found = report.get("vulnerabilities")
        if found is None:
            yield Audit(f"packages of {folder}", 0, 0, [])
        else:
            findings = [f"{name}: {about['severity']}" for name, about in found.items()]
            total = report["metadata"]["dependencies"]["total"]
            yield Audit(f"packages of {folder}", total, 0, findings)


AUDITS: dict[str, Callable[[], Iterator[Audit]]] = {"pip": pip_audit, "npm": npm_audit}


def json_of(command: tuple[str, ...], folder: Path) -> dict[str, Any]:
    run = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(run.stdout)
    except ValueError:
        return {}
    return answer


def main() -> int:
    audits = [audit for name in sys.argv[1:] or AUDITS for audit in AUDITS[name]()]
    for audit in audits:
        print(f"{audit.of}: {audit.looked_up} looked up, {len(audit.findings)} findings")
        if audit.lacks:
            print(f"  {audit.lacks}")
        for finding in audit.findings:
            print(f"  {finding}")
    if any(audit.findings for audit in audits):
        return 1
    return 2 if any(audit.lacks for audit in audits) else 0


if __name__ == "__main__":
    sys.exit(main())
