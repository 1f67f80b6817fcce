"""A person takes everything away again, and can bring it somewhere else."""

import asyncio
import hashlib
import io
import json
import zipfile
from uuid import uuid4

import httpx
import pyrage
import pytest

from core import age
from tests.conftest import sign_up
from tests.exports import chatgpt, chats
from tests.test_import import import_file

PASSPHRASE = "horse staple ü 🦜"


async def export(client, user):
    answer = await client.get("/export/full", headers=user)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    return answer.content


def opened(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def but_for_times(lines):
    """Every line up to what an import sets."""
    return [line.partition(b',"created_at"')[0] for line in lines.splitlines()]


async def save(client, user, prompt, response=None, **more):
    body = {"id": str(uuid4()), "prompt": prompt, "provider": "claude"} | more
    answer = await client.post("/save-prompt", json=body, headers=user)
    assert answer.status_code == 201, answer.text
    if response is not None:
        told = {"memory_id": body["id"], "response": response, "status": more.get("status")}
        told = {name: value for name, value in told.items() if value is not None}
        assert (await client.post("/save-response", json=told, headers=user)).status_code == 200
    return body["id"]


async def everything_odd(client, user):
    """Memories of every kind that there can be."""
    await import_file(client, user, chatgpt(chats(4)))
    await save(
        client, user, "CRLF\r\nand tab\t", "", metadata={"big": 2**70, "f": 1.5, "ü": [None]}
    )
    await save(
        client, user, "stopped", "half", status="partial", source="extension", url="https://x"
    )
    edited = await save(client, user, "I live in Berlin", "ok", occurred_at="2021-01-01T00:00:00Z")
    await client.patch(f"/memories/{edited}", json={"prompt": "I live in Porto"}, headers=user)
    waiting = await save(client, user, "never answered")
    await client.patch(f"/memories/{waiting}", json={"response": "my note"}, headers=user)
    body = {"memory_id": str(uuid4()), "response": "without its prompt", "conversation_id": "c"}
    await client.post("/save-response", json=body, headers=user)
    gone = await save(client, user, "canary")
    await client.delete(f"/memories/{gone}", headers=user)


async def test_an_export_imported_elsewhere_gives_the_same_export(client, alice, bob):
    await everything_odd(client, alice)
    first = await export(client, alice)

    job = await import_file(client, bob, first)
    second = await export(client, bob)
    again = await import_file(client, alice, first)

    lines = opened(first)["memories.jsonl"]
    assert len(lines.splitlines()) == job["imported"] == job["found"] == 13
    assert again["already_here"] == 13
    assert but_for_times(opened(second)["memories.jsonl"]) == but_for_times(lines)
    assert b"canary" not in lines


async def test_a_retry_is_still_one_after_a_move(client, alice, bob):
    memory_id = await save(client, alice, "as captured")
    await client.patch(f"/memories/{memory_id}", json={"prompt": "as edited"}, headers=alice)
    await import_file(client, bob, await export(client, alice))

    body = {"id": memory_id, "prompt": "as captured", "provider": "claude"}
    retry = await client.post("/save-prompt", json=body, headers=bob)

    kept = await client.get(f"/memories/{memory_id}", headers=bob)
    assert retry.status_code == 200
    assert (kept.json()["data"]["prompt"], kept.json()["data"]["edited"]) == ("as edited", True)


async def test_each_conversation_is_a_readable_file_and_the_manifest_counts_all(client, alice):
    await import_file(client, alice, chatgpt(chats(3)))
    await save(client, alice, "alone", occurred_at="2024-05-06T07:08:00Z")

    files = opened(await export(client, alice))

    manifest = json.loads(files.pop("manifest.json"))
    lines = files.pop("memories.jsonl")
    told = manifest["memories.jsonl"]
    assert (told["memories"], told["sha256"]) == (7, hashlib.sha256(lines).hexdigest())
    assert (manifest["markdown"]["files"], manifest["markdown"]["memories"]) == (4, 7)
    together = hashlib.sha256(b"".join(files.values())).hexdigest()
    assert manifest["markdown"]["sha256"] == together
    [chat] = [text.decode() for name, text in files.items() if " Chat 1 " in name]
    assert chat.index("question c1 0") < chat.index("answer c1 0") < chat.index("question c1 1")
    assert (
        b"## You, 2024-05-06 07:08 UTC\n\nalone"
        in files["markdown/without conversation/2024-05.md"]
    )


async def test_a_title_never_becomes_a_path(client, alice):
    for title in ("../../etc/passwd", "/root", "a\\b:c*?", "." * 600, "🦜" * 200):
        await save(client, alice, "p", conversation_id=title[:400], conversation_title=title[:400])

    names = list(opened(await export(client, alice)))

    assert len(names) == len(set(names)) == 7
    for name in names:
        assert ".." not in name
        assert name.count("/") <= 2
        assert len(name) < 150


async def test_an_export_is_made_of_pages_and_is_whole(client, alice, monkeypatch):
    from storage import exports

    monkeypatch.setattr(exports, "PAGE", 7)
    await import_file(client, alice, chatgpt(chats(10, turns=5)))
    for n in range(9):
        await save(client, alice, f"alone {n}", occurred_at=f"2024-0{n // 3 + 1}-01T00:00:00Z")

    files = opened(await export(client, alice))

    prompts = [json.loads(line)["prompt"] for line in files["memories.jsonl"].splitlines()]
    assert len(prompts) == len(set(prompts)) == 59
    assert len(files) == 2 + 10 + 3
    assert sum(text.count(b"## You") for text in files.values()) == 59


async def test_an_empty_account_gives_an_empty_export(client, alice):
    files = opened(await export(client, alice))

    assert files["memories.jsonl"] == b""
    assert json.loads(files["manifest.json"])["markdown"]["files"] == 0


async def test_age_opens_an_encrypted_export_and_so_do_we(client, alice):
    await import_file(client, alice, chatgpt(chats(20, turns=20)))
    body = {"passphrase": PASSPHRASE}

    answer = await client.post("/export/full", json=body, headers=alice)

    assert b"question" not in answer.content
    assert PASSPHRASE.encode() not in answer.content
    plain = pyrage.passphrase.decrypt(answer.content, PASSPHRASE)
    assert plain == b"".join(age.decrypted(io.BytesIO(answer.content), PASSPHRASE))
    assert len(opened(plain)["memories.jsonl"].splitlines()) == 400


@pytest.mark.parametrize("size", [0, 1, age.CHUNK - 1, age.CHUNK, age.CHUNK + 1, 3 * age.CHUNK])
async def test_what_is_encrypted_opens_whatever_its_size(size):
    async def parts():
        for start in range(0, size, 10_000):
            yield bytes(min(10_000, size - start))

    sealed = b"".join([part async for part in age.encrypted(age.header(PASSPHRASE), parts())])

    assert pyrage.passphrase.decrypt(sealed, PASSPHRASE) == bytes(size)
    assert b"".join(age.decrypted(io.BytesIO(sealed), PASSPHRASE)) == bytes(size)


async def test_another_passphrase_or_a_changed_byte_opens_nothing():
    async def parts():
        yield b"secret" * 20_000

    sealed = b"".join([part async for part in age.encrypted(age.header(PASSPHRASE), parts())])

    with pytest.raises(age.CannotDecrypt, match="passphrase is wrong"):
        list(age.decrypted(io.BytesIO(sealed), "another one"))
    for place in (70, 110, 160, 200, 70_000, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(age.CannotDecrypt):
            list(age.decrypted(io.BytesIO(bytes(changed)), PASSPHRASE))
    for cut in (10, 150, 250, 66_000, len(sealed) - 1):
        with pytest.raises(age.CannotDecrypt):
            list(age.decrypted(io.BytesIO(sealed[:cut]), PASSPHRASE))


async def test_one_export_of_a_person_runs_at_a_time(make_server):
    server = make_server()
    await asyncio.to_thread(server.wait_until_ready)
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        carol = await sign_up(client, "carol")
        for n in range(8):
            await save(client, carol, f"{n}" + uuid4().hex * 30_000)
        async with client.stream("GET", "/export/full", headers=carol) as running:
            await anext(running.aiter_bytes(1_000))
            second = await client.get("/export/full", headers=carol)
            assert (second.status_code, second.json()["error_code"]) == (409, "CONFLICT")
        # The first was broken off: its place is free again.
        for _ in range(100):
            third = await client.get("/export/full", headers=carol)
            if third.status_code == 200:
                break
            await asyncio.sleep(0.05)
        assert len(opened(third.content)["memories.jsonl"].splitlines()) == 8
