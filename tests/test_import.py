"""A person brings years of chats, and finds them here: all of them, and each once."""

import pytest

from tests.conftest import until
from tests.exports import FORMATS, chats, zipped

ENDED = ("done", "failed", "cancelled")


async def upload(client, user, content, status=202, **more):
    answer = await client.post("/import", content=content, headers=user, **more)
    assert answer.status_code == status, answer.text
    return answer.json()["data"] if status == 202 else answer.json()


async def ended(client, user, job_id):
    job = {}

    async def is_over():
        answer = await client.get(f"/import/{job_id}", headers=user)
        job.update(answer.json()["data"])
        return job["state"] in ENDED

    await until(is_over)
    assert job["found"] == sum(
        job[name] for name in ("imported", "already_here", "skipped", "failed")
    )
    assert sum(job["reasons"].values()) == job["skipped"] + job["failed"]
    return job


async def import_file(client, user, content):
    return await ended(client, user, (await upload(client, user, content))["id"])


def counts(job):
    names = ("found", "imported", "already_here", "skipped", "failed")
    return tuple(job[name] for name in names)


@pytest.mark.parametrize("name", FORMATS)
async def test_each_format_is_imported_once_however_often_it_is_sent(client, alice, name):
    export = FORMATS[name](chats(3))

    first = await import_file(client, alice, export)
    again = await import_file(client, alice, zipped({"any/name.bin": export}))

    assert (first["state"], first["format"]) == ("done", name)
    assert counts(first) == (6, 6, 0, 0, 0)
    assert counts(again) == (6, 0, 6, 0, 0)
    found = await client.post("/search", json={"query": "question"}, headers=alice)
    assert len(found.json()["data"]["hits"]) == 6
