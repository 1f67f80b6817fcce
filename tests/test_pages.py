"""The files of the pages come as what they are, under a policy that runs no other script."""

import re

import pytest

from core.config import ROOT

FILES = sorted(
    str(path.relative_to(ROOT / "admin")) for path in (ROOT / "admin").rglob("*") if path.is_file()
)
TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}


async def test_a_file_has_its_type_and_the_policy(client):
    for name in FILES:
        answer = await client.get(f"/assets/{name}")

        assert answer.status_code == 200
        assert answer.content == (ROOT / "admin" / name).read_bytes()
        assert answer.headers["content-type"].split(";")[0] == TYPES[name.rpartition(".")[2]]
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_file_that_is_known_already_is_not_sent_again(client):
    first = await client.get("/assets/shared/dom.js")

    again = await client.get(
        "/assets/shared/dom.js", headers={"If-None-Match": first.headers["etag"]}
    )

    assert again.status_code == 304
    assert again.content == b""
    assert first.headers["cache-control"] == "no-cache"


async def test_a_file_comes_compressed_to_whoever_takes_that(client):
    plain = await client.get("/assets/web/app.js", headers={"Accept-Encoding": "identity"})
    packed = await client.get("/assets/web/app.js", headers={"Accept-Encoding": "gzip"})

    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"


def modules_of(*paths):
    """The modules at these paths below `admin/`, and all that they import from the beginning."""
    found, next_ones = set(), list(paths)
    while next_ones:
        path = next_ones.pop()
        if path not in found:
            found.add(path)
            folder, text = (ROOT / "admin" / path).parent, (ROOT / "admin" / path).read_text()
            for name in re.findall(r'^import .+ from "(.+)";$', text, re.MULTILINE):
                next_ones.append(str((folder / name).resolve().relative_to(ROOT / "admin")))
    return found


@pytest.mark.parametrize(
    ("page", "shown_at_once"),
    [("web/index.html", ["web/app.js"]), ("index.html", ["app.js", "views/overview.js"])],
)
def test_a_page_asks_at_once_for_the_modules_it_begins_with_and_no_others(page, shown_at_once):
    named = re.findall(r'"modulepreload" href="/assets/(.+)"', (ROOT / "admin" / page).read_text())

    assert len(named) == len(set(named))
    assert set(named) == modules_of(*shown_at_once) - {shown_at_once[0]}


ELSEWHERE = (
    "shared",
    "shared/",
    "nothing.js",
    "../main.py",
    "..%2fcore%2fconfig.py",
    "..%2f..%2fetc%2fpasswd",
    "/etc/passwd",
    "%2fetc%2fhostname.js",
    "shared/..%2f..%2fdocs%2fapi.js",
    "shared/dom.js%00.css",
    "shared/dom.js/",
    "..%5c..%5cmain.js",
    "a" * 5_000 + ".js",
)


async def test_nothing_else_can_be_reached(client):
    for name in ELSEWHERE:
        answer = await client.get(f"/assets/{name}")

        assert answer.status_code == 404, name
        assert answer.json()["error_code"] == "NOT_FOUND"


def test_no_file_of_ours_turns_text_into_markup_or_runs_inline():
    for name in FILES:
        text = (ROOT / "admin" / name).read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("):
            assert word not in text, name
        if name.endswith(".html"):
            assert "<style" not in text and "style=" not in text and " on" not in text, name
