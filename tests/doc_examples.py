"""The examples of the documents, taken out of them and run as a reader would."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
# The address of every example that names one.
ADDRESS = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Example:
    heading: str
    language: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.heading} ({self.language})"


def examples_in(document: Path) -> list[Example]:
    """Every block marked `sh` or `python`, under the heading that it stands below."""
    text = document.read_text()
    return [
        Example(HEADING.findall(text[: block.start()])[-1].replace("`", ""), *block.groups())
        for block in FENCE.finditer(text)
    ]


def run(example: Example, folder: Path, url: str, **variables: str) -> str:
    """Run it with these variables and return what it prints; no request in it may be refused."""
    (folder / ".curlrc").write_text("fail-with-body\n")
    programs = Path(sys.executable).parent
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder), "URL": url} | variables
    code = example.code.replace(ADDRESS, url)
    command = {
        "sh": ["bash", "-euo", "pipefail", "-c", code],
        "python": [sys.executable, "-c", code],
    }[example.language]
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, f"{example.name}:\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout
