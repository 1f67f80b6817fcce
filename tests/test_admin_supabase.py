"""The operator's view of people whose accounts are a Supabase project's."""

from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from core import directory
from core.signing_keys import LocalKeys
from tests.conftest import ADMIN_KEY, app_client
from tests.supabase_project import SECRET, project

KEY = {"X-Admin-Key": ADMIN_KEY}
PEOPLE = {UUID(int=n): f"person{n}@example.com" for n in range(1, 61)}
FIRST = UUID(int=1)


@pytest.fixture
async def its_project():
    async with project(LocalKeys([ec.generate_private_key(ec.SECP256R1())])) as served:
        served.users, served.emails = set(PEOPLE), dict(PEOPLE)
        yield served


@pytest.fixture
async def client(settings, its_project):
    changed = {"supabase_url": its_project.url, "supabase_secret_key": SecretStr(SECRET)}
    async with app_client(settings.model_copy(update=changed)) as client:
        yield client


async def find(client, **query):
    answer = await client.get("/admin/api/users", params=query, headers=KEY)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def test_all_of_the_projects_users_are_listed_page_by_page(client):
    pages = [await find(client, page=number) for number in range(3)]

    listed = [person["email"] for page in pages for person in page["people"]]
    assert sorted(listed) == sorted(PEOPLE.values())
    assert [page["has_more"] for page in pages] == [True, True, False]
    assert pages[0]["source"] == "supabase"
    assert pages[0]["people"][0]["name"] == f"Name of {pages[0]['people'][0]['email']}"


async def test_a_user_of_the_project_is_found_by_address_and_by_id(client, monkeypatch):
    # Reads the list in several parts, as it does for thousands of people.
    monkeypatch.setattr(directory, "USERS_A_READ", 25)

    by_address = await find(client, query="PERSON60@")
    by_id = await find(client, query=str(UUID(int=60)))

    assert [person["id"] for person in by_address["people"]] == [str(UUID(int=60))]
    assert by_address["complete"]
    assert by_id["people"] == by_address["people"]


async def test_a_list_that_is_too_long_to_be_searched_says_so(client, monkeypatch):
    monkeypatch.setattr(directory, "USERS_A_READ", 25)
    monkeypatch.setattr(directory, "MOST_READS", 2)

    found = await find(client, query="person60@")

    assert (found["people"], found["complete"]) == ([], False)


async def test_a_tier_is_shown_in_the_projects_metadata(client, its_project):
    answer = await client.put(
        f"/admin/api/users/{FIRST}/plan", json={"tier": "enterprise"}, headers=KEY
    )

    assert answer.json()["data"] == {"mirrored": True}
    assert its_project.tiers == {FIRST: "enterprise"}


async def test_a_tier_holds_also_while_the_project_does_not_answer(client, its_project):
    await find(client, query=str(FIRST))
    its_project.away = True

    answer = await client.put(f"/admin/api/users/{FIRST}/plan", json={"tier": "pro"}, headers=KEY)

    assert answer.json()["data"] == {"mirrored": False}
    seen = await client.get(f"/admin/api/users/{FIRST}", headers=KEY)
    assert seen.json()["data"]["person"]["tier"] == "pro"


async def test_while_the_project_is_away_its_list_is_unavailable_and_the_rest_is_there(
    client, its_project
):
    its_project.away = True

    listed = await client.get("/admin/api/users", headers=KEY)
    limits = await client.get("/admin/api/limits", headers=KEY)

    assert (listed.status_code, listed.json()["error_code"]) == (503, "UNAVAILABLE")
    assert "Supabase" in listed.json()["error"]
    assert limits.status_code == 200


async def test_erasing_needs_the_typed_address_and_deletes_the_projects_user(client, its_project):
    address = f"/admin/api/users/{FIRST}/erase"

    wrong = await client.post(address, json={"typed": PEOPLE[UUID(int=2)]}, headers=KEY)
    right = await client.post(address, json={"typed": PEOPLE[FIRST]}, headers=KEY)

    assert wrong.status_code == 400
    assert right.json()["data"]["sign_in"] == "erased"
    assert FIRST not in its_project.users and len(its_project.users) == len(PEOPLE) - 1


async def test_a_user_deleted_at_supabase_waits_for_the_operators_word(
    client, its_project, database
):
    its_project.users.discard(FIRST)
    await database.execute("INSERT INTO memory_layer.user_state (user_id) VALUES ($1)", FIRST)
    await client.post("/admin/api/jobs/find_missing_users/run", headers=KEY)

    async def missing():
        seen = (await client.get("/admin/api/system", headers=KEY)).json()["data"]
        return [user["user_id"] for user in seen["missing_users"]]

    assert await missing() == [str(FIRST)]
    address = f"/admin/api/missing-users/{FIRST}/erase"
    wrong = await client.post(address, json={"typed": "yes"}, headers=KEY)
    assert (wrong.status_code, await missing()) == (400, [str(FIRST)])
    right = await client.post(address, json={"typed": str(FIRST)}, headers=KEY)
    assert (right.status_code, await missing()) == (200, [])
    newest = (await client.get("/admin/api/audit", headers=KEY)).json()["data"]["deeds"][0]
    assert (newest["action"], newest["user_id"]) == ("account_erased", str(FIRST))


async def test_without_the_secret_key_users_are_known_by_id_alone(settings, its_project, database):
    await database.execute("INSERT INTO memory_layer.user_state (user_id) VALUES ($1)", FIRST)
    changed = {"supabase_url": its_project.url}
    async with app_client(settings.model_copy(update=changed)) as client:
        found = await find(client)

    assert found["source"] == "ids"
    assert [(one["id"], one["email"]) for one in found["people"]] == [(str(FIRST), None)]
    assert its_project.asked == []
