"""What guards the code before it is merged finds what it is there to find."""

import os
import subprocess
import sys

from core.config import ROOT

NOWHERE = "http://127.0.0.1:9"


def run(*command, **environment):
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_new_secret_is_found_and_those_that_were_looked_at_are_not(tmp_path):
    hook = [f"{sys.prefix}/bin/detect-secrets-hook", "--no-verify", "--baseline"]
    leaked = tmp_path / "settings.py"
    # In two pieces, or this file would be found itself.
    leaked.write_text('aws = "AKIA' + 'QYLPMN5HFIQR7BBB"\n')

    found = run(*hook, ".secrets.baseline", str(leaked))
    known = run(*hook, ".secrets.baseline", "tests/conftest.py")

    assert (found.returncode, known.returncode) == (1, 0)
    assert "AWS Access Key" in found.stdout


def test_an_audit_that_could_not_reach_its_data_is_no_pass():
    alone = {"npm_config_registry": NOWHERE, "npm_config_fetch_retries": "0"}
    audit = run(sys.executable, "-m", "tests.audit", HTTPS_PROXY=NOWHERE, **alone)

    assert audit.returncode == 2, audit.stdout
    assert audit.stdout.count("NOT CHECKED: the data could not be reached") == 4
