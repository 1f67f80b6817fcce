"""The extension is what it claims to be: small, typed, tested in Node, and asking for little."""

import json
import subprocess
import zipfile
from pathlib import Path

from tests.extension.conftest import EXTENSION

KB = 1_000


def test_the_adapters_and_rules_pass_their_own_tests(built: Path) -> None:
    tests = sorted(str(path) for path in (EXTENSION / "dist" / "tests").glob("*.test.mjs"))
    run = subprocess.run(
        ["node", "--enable-source-maps", "--test", "--test-reporter=dot", *tests],
        cwd=EXTENSION,
        capture_output=True,
        text=True,
    )
    assert len(tests) >= 3
    assert run.returncode == 0, run.stdout[-5_000:] + run.stderr


def test_what_runs_in_pages_and_the_whole_package_are_small(built: Path, tmp_path: Path) -> None:
    package = tmp_path / "extension.zip"
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in built.rglob("*"):
            archive.write(path, path.relative_to(built))

    assert (built / "content.js").stat().st_size <= 60 * KB
    assert (built / "tap.js").stat().st_size <= 10 * KB
    assert package.stat().st_size <= 400 * KB


def test_it_asks_for_no_more_than_its_readme_explains(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    readme = (EXTENSION / "README.md").read_text()

    asked = [*manifest["permissions"], *manifest["optional_permissions"]]
    assert set(asked) == {"storage", "alarms", "sidePanel", "scripting", "identity"}
    assert manifest["host_permissions"] == ["http://127.0.0.1/*"]
    for permission in asked:
        assert f"`{permission}`" in readme
    for script in manifest["content_scripts"]:
        for match in script["matches"]:
            assert match.split("/")[2] in readme


def test_nothing_of_it_is_loaded_from_elsewhere_or_made_of_text(built: Path) -> None:
    for path in built.rglob("*"):
        if path.suffix in (".js", ".html"):
            text = path.read_text()
            for word in ("eval(", "new Function", "innerHTML", "document.write", "https://cdn"):
                assert word not in text, (path.name, word)


def test_versions_are_exact() -> None:
    package = json.loads((EXTENSION / "package.json").read_text())
    for version in (package["dependencies"] | package["devDependencies"]).values():
        assert version[0].isdigit(), version
