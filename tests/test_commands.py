"""What `python main.py …` does."""

import subprocess
import sys

from core.config import ROOT


def main_py(*arguments):
    return subprocess.run(
        [sys.executable, "main.py", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_each_admin_key_is_a_new_one():
    runs = [main_py("admin-key") for _ in range(2)]

    keys = {run.stdout.strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert len(keys) == 2
    assert all(key.startswith("mla_") and len(key) >= 47 for key in keys)


def test_an_unknown_command_names_those_that_exist():
    run = main_py("make-coffee")

    assert run.returncode == 2
    assert "admin-key" in run.stderr
