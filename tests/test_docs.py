"""What the documents say is what the service does."""

import re
from pathlib import Path

import pytest

from core.config import Settings
from core.errors import AppError
from main import ROUTERS, create_app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
ENV_EXAMPLE = (ROOT / ".env.example").read_text()


def catalogue(kind=AppError):
    return {kind, *(error for child in kind.__subclasses__() for error in catalogue(child))}


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150
    assert "docs/settings.md" in README


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described(name):
    assert f"`{name.upper()}`" in SETTINGS
    assert re.search(rf"^# {name.upper()}=", ENV_EXAMPLE, re.MULTILINE)


def test_no_setting_is_described_that_does_not_exist():
    described = {
        name.lower()
        for line in SETTINGS.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([A-Z_]+)`", line.split("|")[1])
    }
    assert described == set(Settings.model_fields)
    commented = {
        line[2:].split("=")[0].lower() for line in re.findall(r"^# [A-Z_]+=", ENV_EXAMPLE, re.M)
    }
    assert commented == set(Settings.model_fields)


def test_every_error_is_described_with_its_status():
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", API, re.MULTILINE))
    assert rows == {error.code: str(error.status) for error in catalogue()}


def test_every_route_is_described():
    for path in create_app().openapi()["paths"]:
        if not path.startswith("/auth/v1"):
            assert path in API, path


def test_every_route_names_its_errors_in_openapi():
    document = create_app().openapi()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert "422" not in operation["responses"], (method, path)
            assert operation.get("tags"), (method, path)
            if path.startswith(("/save", "/search", "/memories", "/conversations")):
                assert {"400", "401", "503"} <= set(operation["responses"]), (method, path)


def test_every_router_is_on_the_map():
    for module in ROUTERS:
        assert f"`{module.__name__.split('.')[-1]}`" in README


def test_every_file_on_the_map_exists():
    table = README.split("## The map")[1].split("## Settings")[0]
    for name in re.findall(r"`([a-z_/]+(?:\.py|/))`", table):
        assert (ROOT / name).exists() or (ROOT / "storage" / name).exists(), name


def test_the_examples_of_the_readme_are_the_commands_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


async def test_the_page_to_try_things_out_loads_nothing_from_elsewhere(client):
    page = await client.get("/docs")

    assert page.status_code == 200
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert addresses
    for address in addresses:
        assert address.startswith("http://127.0.0.1:8000/"), address
        assert (await client.get(address)).status_code == 200


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_no_section_stands_in_a_document_twice(path):
    headings = [line for line in path.read_text().splitlines() if re.match(r"##+ ", line)]
    assert len(headings) == len(set(headings))
