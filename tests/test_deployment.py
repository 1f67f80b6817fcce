"""What an operator deploys with is what the service takes: blueprint, image and the guide."""

import asyncio
import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from core import commands
from core.config import ROOT, Settings
from main import ROUTERS, create_app
from tests.conftest import Server

BLUEPRINT = yaml.safe_load((ROOT / "render.yaml").read_text())
WEB, COUNTERS = BLUEPRINT["services"]
[GROUP] = BLUEPRINT["envVarGroups"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
GUIDE = (ROOT / "docs" / "deploy.md").read_text()
# Render's own.
NOT_OURS = {"PYTHON_VERSION"}
# Of the settings that have no value of their own, those with no use on Render.
HOME_ONLY = {"auth_public_url"}
# Found from others, only for old projects, or only while a key is changed.
SELDOM = {"supabase_jwks_url", "supabase_jwt_secret", "admin_api_keys"}
SELDOM |= {"embedder_base_url", "embedder_api_key"}


def variables():
    listed = [*GROUP["envVars"], *WEB["envVars"]]
    return {item["key"]: item for item in listed if "key" in item}


def has_no_value_of_its_own(field):
    return field.default is None or field.default == ()


def test_every_variable_of_the_blueprint_is_a_setting():
    names = {name.lower() for name in variables()} - {name.lower() for name in NOT_OURS}

    assert names - set(Settings.model_fields) == set()


def test_every_setting_that_an_operator_must_know_is_in_the_blueprint():
    needed = {n for n, field in Settings.model_fields.items() if has_no_value_of_its_own(field)}
    # Names only where people come from; with Supabase any name will do.
    needed -= HOME_ONLY | SELDOM | {"allowed_hosts"}

    assert needed - {name.lower() for name in variables()} == set()


def test_the_service_takes_the_blueprints_values():
    given = {name.lower(): item["value"] for name, item in variables().items() if "value" in item}
    secrets = {"supabase_url": "https://project.supabase.co", "database_url": "postgresql://x"}

    settings = Settings(_env_file=None, **given | secrets)

    assert (settings.host, settings.default_tier) == ("0.0.0.0", "free")
    assert settings.replicas == WEB["numInstances"]


def test_the_blueprint_holds_no_secret():
    for name, item in variables().items():
        if re.search("KEY|TOKEN|SECRET|DSN|DATABASE|REDIS", name):
            assert "value" not in item, name
            assert item.get("generateValue") or item.get("sync") is False or "fromService" in item
    # A group cannot ask for values.
    assert all("sync" not in item for item in GROUP["envVars"])


def test_the_blueprint_hangs_together():
    redis = variables()["REDIS_URL"]["fromService"]
    assert (redis["type"], redis["name"]) == (COUNTERS["type"], COUNTERS["name"])
    assert COUNTERS["region"] == WEB["region"]
    assert COUNTERS["ipAllowList"] == []
    assert COUNTERS["maxmemoryPolicy"] == "noeviction"
    assert {"fromGroup": GROUP["name"]} in WEB["envVars"]
    assert WEB["healthCheckPath"] in create_app().openapi()["paths"]
    graceful = re.search(r"timeout_graceful_shutdown=(\d+)", serving_source())
    assert graceful and WEB["maxShutdownDelaySeconds"] >= 2 * int(graceful[1])


def serving_source():
    return (ROOT / "core" / "serving.py").read_text()


def test_the_blueprints_commands_are_ours():
    python = variables()["PYTHON_VERSION"]["value"]
    assert WEB["startCommand"] == "python main.py"
    install, model = WEB["buildCommand"].split(" && ")
    assert (ROOT / install.split()[-1]).exists()
    assert model == f"python -m core.minilm {Settings(_env_file=None).model_dir.name}"
    assert python.startswith(f"{sys.version_info.major}.") and python.count(".") == 2


def copied(stage):
    """The sources of a stage that come from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", stage, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def ignored():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def is_ignored(path):
    """Of .dockerignore's language what ours uses: names at the top, `**/` for any folder."""
    for pattern in ignored():
        if pattern.startswith("**/"):
            if any(fnmatch.fnmatch(part, pattern[3:]) for part in path.parts):
                return True
        elif fnmatch.fnmatch(path.parts[0], pattern):
            return True
    return False


def tracked():
    run = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(line) for line in run.stdout.splitlines()]


def test_the_image_is_built_from_what_is_there_and_runs_as_nobody_special():
    _, build, final = DOCKERFILE.split("\nFROM ")
    for source in copied(build):
        assert (ROOT / source).exists(), source
        assert not is_ignored(Path(source)), source
    assert copied(final) == ["."]
    assert re.findall(r"^USER (\S+)$", final, re.MULTILINE) == ["memory-layer"]
    assert 'CMD ["python", "main.py"]' in final
    assert len(set(re.findall(r"python:\S+", DOCKERFILE))) == 1


@pytest.mark.parametrize("secret", [".env", ".env.local", "data/x", "tests/x.py", ".git/config"])
def test_no_secret_and_nobodys_data_enters_the_image(secret):
    assert is_ignored(Path(secret))


async def test_the_files_of_the_image_are_enough_to_serve(tmp_path, database_url):
    for path in tracked():
        if not is_ignored(path):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, tmp_path / path)
    server = Server(DATABASE_URL=database_url)
    server.start(tmp_path)
    try:
        await asyncio.to_thread(server.wait_until_ready)
        assert server.stop() == 0
    finally:
        server.close()


def test_the_guides_commands_exist():
    known = commands.names()
    for name in re.findall(r"main\.py ([a-z-]+)", GUIDE):
        assert name in known, name
    for target in re.findall(r"^make ([a-z]+)", GUIDE, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def test_the_guides_settings_and_files_exist():
    for name in re.findall(r"`([A-Z][A-Z_]{3,})`", GUIDE):
        assert name.lower() in Settings.model_fields or name in NOT_OURS, name
    for name in re.findall(r"\]\(([^)#:]+)\)", GUIDE):
        assert (ROOT / "docs" / name).exists(), name
    routes = {route.path for module in ROUTERS for route in module.router.routes}
    for path in re.findall(r"`(/[a-z]\S*)`", GUIDE):
        assert path in routes or f"VOLUME {path}\n" in DOCKERFILE, path


def test_every_variable_that_render_asks_for_is_in_the_guide():
    asked = [name for name, item in variables().items() if item.get("sync") is False]

    assert [name for name in asked if f"`{name}`" not in GUIDE] == []


def test_every_alert_says_how_bad_it_is_and_what_to_do():
    for group in yaml.safe_load((ROOT / "docs" / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert rule["annotations"]["summary"]
            assert f"| `{rule['alert']}` |" in GUIDE
