"""What runs in the background: once for all replicas, in sight, and never at a memory's cost."""

import asyncio
import platform
from uuid import uuid4

import asyncpg
import httpx
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from core.capture import Capture
from core.erasure import Erasures
from core.errors import Conflict, NotFound, Unavailable
from core.jobs import Job, Jobs
from core.missing_users import MissingUsers
from core.retrieval import Retrieval
from core.save_queue import write_together
from core.signing_keys import LocalKeys
from core.supabase_users import SupabaseUsers
from core.upkeep import all_jobs
from storage import change_feed, erasure, memory_store
from storage.database import acting_as, open_pool
from storage.job_runs import acting_as_janitor
from storage.memory_store import Filters
from tests.conftest import app_client, sign_up, until
from tests.supabase_project import SECRET, project

EVERYTHING_IS_OLD = """
    UPDATE memory_layer.memories SET created_at = now() - interval '5 years',
           updated_at = now() - interval '5 years', occurred_at = now() - interval '5 years';
    UPDATE memory_layer.job_runs SET started_at = NULL;
"""


@pytest.fixture
async def pool(database_url):
    async with open_pool(database_url, 2, 8) as pool:
        yield pool


async def forget_nothing(user_id):
    pass


@pytest.fixture
def erasures(pool):
    return Erasures(pool, forget_nothing, None, None)


@pytest.fixture
async def retrieval(pool):
    retrieval = Retrieval(pool, None, 2**20)
    yield retrieval
    retrieval.close()


@pytest.fixture
async def its_project():
    async with project(LocalKeys([ec.generate_private_key(ec.SECP256R1())])) as served:
        yield served


@pytest.fixture
async def missing(pool, its_project):
    async with httpx.AsyncClient() as http:
        directory = SupabaseUsers(its_project.url, SECRET, http)
        erasures = Erasures(pool, forget_nothing, None, directory)
        yield MissingUsers(pool, directory, erasures)


@pytest.fixture
async def jobs(pool, retrieval, erasures, missing):
    """All jobs of a server that belongs to a project."""
    jobs = Jobs(pool, all_jobs(pool, retrieval, erasures, missing))
    await jobs.register()
    return jobs


async def detail_of(jobs, name):
    run = await jobs.run_now(name)
    assert run.outcome == "ok", run
    return run.detail


async def save(pool, user_id, text="text"):
    memory_id = uuid4()
    await write_together(pool, [Capture(user_id, memory_id, "prompt", text)])
    return memory_id


async def delete(pool, user_id, memory_id):
    async with acting_as(pool, user_id) as conn:
        number = (await memory_store.take_numbers(conn, {user_id: 1}))[user_id]
        assert await memory_store.delete(conn, user_id, memory_id, number)


async def test_a_due_job_is_run_by_one_replica(pool):
    ran = []

    async def work():
        ran.append(1)
        await asyncio.sleep(0.05)
        return "done"

    replicas = [Jobs(pool, [Job("one", 3_600, "Try", work)]) for _ in range(5)]
    for replica in replicas:
        await replica.register()

    names = await asyncio.gather(*(replica.run_due() for replica in replicas))

    assert sorted(names) == [[], [], [], [], ["one"]]
    assert len(ran) == 1
    (run,) = await replicas[0].list_runs()
    assert (run.name, run.every_seconds, run.outcome, run.detail) == ("one", 3_600, "ok", "done")
    assert run.started_at < run.finished_at
    assert await replicas[0].run_due() == []


async def test_a_job_is_due_again_when_its_time_has_come(pool, database):
    async def work():
        return ""

    jobs = Jobs(pool, [Job("one", 60, "Try", work)])
    await jobs.register()
    assert await jobs.run_due() == ["one"]
    began = "UPDATE memory_layer.job_runs SET started_at = now() - make_interval(secs => $1)"
    for ago, ran in ((59, []), (61, ["one"])):
        await database.execute(began, ago)
        assert await jobs.run_due() == ran


async def test_a_job_whose_replica_died_is_taken_over(pool, database):
    async def work():
        return ""

    jobs = Jobs(pool, [Job("one", 60, "Try", work)])
    await jobs.register()
    died = "UPDATE memory_layer.job_runs SET outcome = 'running', started_at = now() - $1::interval"
    await database.execute(died.replace("$1", "'200 s'"))
    assert await jobs.run_due() == []
    await database.execute(died.replace("$1", "'301 s'"))
    assert await jobs.run_due() == ["one"]


async def test_a_job_that_fails_says_so_and_stops_no_other(pool):
    async def fail():
        raise asyncpg.QueryCanceledError("of alice's kumquat")

    async def work():
        return "fine"

    jobs = Jobs(pool, [Job("bad", 60, "Fail", fail), Job("good", 60, "Try", work)])
    await jobs.register()

    assert sorted(await jobs.run_due()) == ["bad", "good"]

    bad, good = await jobs.list_runs()
    assert (bad.outcome, bad.detail) == ("failed", "QueryCanceledError")
    assert (good.outcome, good.detail) == ("ok", "fine")


async def test_a_fault_of_ours_is_seen_too(pool):
    async def fail():
        raise ZeroDivisionError

    jobs = Jobs(pool, [Job("bad", 60, "Fail", fail)])
    await jobs.register()

    with pytest.raises(ZeroDivisionError):
        await jobs.run_due()

    assert (await jobs.list_runs())[0].detail == "ZeroDivisionError"


async def test_a_job_of_each_replicas_own_memory_runs_on_each(pool):
    ran = []

    async def work():
        ran.append(1)
        return ""

    for _ in range(2):
        jobs = Jobs(pool, [Job("own", 3_600, "Try", work, everywhere=True)])
        await jobs.register()
        assert await jobs.run_due() == ["own"]
        assert await jobs.run_due() == []
    assert len(ran) == 2


async def test_no_job_takes_a_memory_that_its_owner_did_not_delete(
    pool, database, jobs, its_project, retrieval
):
    """Everything is five years old, and the project knows none of these people."""
    alice, bob = uuid4(), uuid4()
    kept = {who: {await save(pool, who) for _ in range(3)} for who in (alice, bob)}
    await delete(pool, alice, await save(pool, alice))
    await database.execute(EVERYTHING_IS_OLD)
    its_project.users = {uuid4()}

    ran = await jobs.run_due()

    assert set(ran) == {run.name for run in await jobs.list_runs() if run.outcome == "ok"}
    assert len(ran) >= 6
    for who in (alice, bob):
        page = await memory_store.newest(pool, who, Filters(), None, 10)
        assert {memory.id for memory in page} == kept[who]
    assert await database.fetchval("SELECT count(*) FROM memory_layer.memories") == 7


async def test_the_janitor_could_not_take_a_memory_if_it_tried(pool):
    alice = uuid4()
    await save(pool, alice)
    async with acting_as_janitor(pool) as conn:
        done = await conn.execute("DELETE FROM memory_layer.memories WHERE user_id = $1", alice)
        assert done == "DELETE 0"
        done = await conn.execute("DELETE FROM memory_layer.user_state WHERE user_id = $1", alice)
        assert done == "DELETE 0"
    for column in ("prompt", "response"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with acting_as_janitor(pool) as conn:
                await conn.fetch(f"SELECT {column} FROM memory_layer.memories")


async def test_old_tombstones_go_and_readers_know_what_they_missed(pool, database, jobs, retrieval):
    alice = uuid4()
    kept = await save(pool, alice, "walrus")
    for _ in range(3):
        await delete(pool, alice, await save(pool, alice, "walrus"))
    before = await retrieval.recall(alice, "walrus", 10, Filters())
    late = await save(pool, alice, "walrus")
    # This cache has not heard of the deletion that is about to be forgotten.
    await retrieval.recall(alice, "walrus", 10, Filters())
    await delete(pool, alice, late)
    await delete(pool, alice, recent := await save(pool, alice, "walrus"))
    await database.execute(
        "UPDATE memory_layer.memories SET deleted_at = now() - interval '401 days'"
        " WHERE deleted_at IS NOT NULL AND id <> $1",
        recent,
    )

    assert await detail_of(jobs, "purge_tombstones") == "4 tombstones"

    left = await database.fetch("SELECT id FROM memory_layer.memories ORDER BY change_seq")
    assert [row["id"] for row in left] == [kept, recent]
    after = await retrieval.recall(alice, "walrus", 10, Filters())
    assert [hit.memory.id for hit in before.hits] == [hit.memory.id for hit in after.hits] == [kept]
    async with acting_as(pool, alice) as conn:
        position = await change_feed.position(conn, alice)
    assert position.purged_through == 9
    assert await detail_of(jobs, "purge_tombstones") == "0 tombstones"


async def test_tombstones_are_purged_beside_saves_without_a_deadlock(pool, database, jobs):
    people = [uuid4() for _ in range(4)]

    async def write(n):
        for _ in range(15):
            captures = [Capture(who, uuid4(), "prompt", "x") for who in people[n:] + people[:n]]
            await write_together(pool, captures)

    async def purge():
        for _ in range(15):
            for who in people:
                await delete(pool, who, await save(pool, who))
            await database.execute(
                "UPDATE memory_layer.memories SET deleted_at = now() - interval '401 days'"
                " WHERE deleted_at IS NOT NULL"
            )
            await jobs.run_now("purge_tombstones")

    await asyncio.gather(*(write(n) for n in range(3)), purge())

    assert await database.fetchval("SELECT count(*) FROM memory_layer.memories") == 4 * 3 * 15


async def test_old_use_is_forgotten_and_this_years_stays(pool, database, jobs):
    await database.execute(
        "INSERT INTO memory_layer.daily_use SELECT $1, current_date - n, 1"
        " FROM unnest(ARRAY[0, 30, 399, 400, 401, 900]) AS n",
        uuid4(),
    )

    assert await detail_of(jobs, "purge_daily_use") == "2 days"

    assert await database.fetchval("SELECT count(*) FROM memory_layer.daily_use") == 4


async def test_sessions_that_nobody_uses_end(client, database, jobs):
    await sign_up(client, "alice")
    bob = await sign_up(client, "bob")
    await database.execute(
        "UPDATE memory_layer_auth.sessions SET refreshed_at = now() - interval '401 days'"
        " WHERE user_id = (SELECT id FROM memory_layer_auth.users WHERE email LIKE 'alice%')"
    )

    assert await detail_of(jobs, "end_sessions") == "1 sessions"

    assert (await client.get("/auth/v1/user", headers=bob)).status_code == 200


async def test_long_expired_tokens_are_forgotten_and_others_stay(pool, database, jobs):
    await database.execute(
        "INSERT INTO memory_layer.api_tokens (user_id, id, token_hash, name, scopes, expires_at)"
        " SELECT $1, gen_random_uuid(), sha256(gen_random_uuid()::text::bytea), 'n', '{read}',"
        "        now() - make_interval(days => n)"
        "   FROM unnest(ARRAY[NULL, -1, 1, 29, 31]) AS n",
        uuid4(),
    )

    assert await detail_of(jobs, "purge_tokens") == "1 tokens"


async def test_a_cache_that_differs_from_the_database_is_dropped(pool, database, jobs, retrieval):
    alice, bob = uuid4(), uuid4()
    ghost = await save(pool, alice, "walrus")
    for who in (alice, bob):
        await save(pool, who, "walrus")
        await retrieval.recall(who, "walrus", 10, Filters())
    assert await detail_of(jobs, "verify_caches") == "2 caches, 0 differed"
    # As nothing of ours would do it: by hand, and without a number.
    await database.execute("DELETE FROM memory_layer.memories WHERE id = $1", ghost)

    assert await detail_of(jobs, "verify_caches") == "2 caches, 1 differed"

    found = await retrieval.recall(alice, "walrus", 10, Filters())
    assert len(found.hits) == 1
    assert await detail_of(jobs, "verify_caches") == "2 caches, 0 differed"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries keep nothing")
async def test_memory_between_what_is_in_use_goes_back_to_the_system(jobs):
    process, texts = psutil.Process(), [bytearray(20_000) for _ in range(4_000)]
    del texts[::2]  # what is left keeps the heap from shrinking at its end
    before = process.memory_info().rss

    assert await detail_of(jobs, "trim_memory") == "some"

    assert process.memory_info().rss < before - 15 * 2**20
    assert len(texts) == 2_000


async def test_an_erasure_that_was_cut_short_is_finished(pool, database, jobs):
    alice, bob = uuid4(), uuid4()
    for who in (alice, bob):
        await save(pool, who)
    await erasure.mark(pool, alice)

    assert await detail_of(jobs, "finish_erasures") == "1 accounts"

    assert await database.fetch("SELECT user_id FROM memory_layer.memories") == [(bob,)]
    assert not await database.fetchval(
        "SELECT bool_or(erasure_pending) FROM memory_layer.user_state"
    )


async def test_what_supabase_did_not_answer_is_asked_again(
    database, jobs, missing, people, its_project
):
    its_project.away = True
    receipt = await missing.erasures.erase_account(people[1])
    assert receipt.sign_in == "pending"
    its_project.away = False

    assert await missing.erasures.finish_all() == "1 accounts"

    assert people[1] not in its_project.users
    pending = "SELECT count(*) FROM memory_layer.user_state WHERE erasure_pending"
    assert await database.fetchval(pending) == 0


async def test_in_the_end_not_even_the_mark_of_an_erased_account_stays(
    pool, database, jobs, erasures
):
    alice, late, bob = uuid4(), uuid4(), uuid4()
    for who in (alice, late, bob):
        await save(pool, who)
    for who in (alice, late):
        await erasures.erase_account(who)
    await database.execute(
        "UPDATE memory_layer.user_state SET erased_at = now() - interval '9 days'"
        " WHERE user_id = $1",
        alice,
    )
    await database.execute("INSERT INTO memory_layer.daily_use VALUES ($1, current_date, 1)", alice)

    assert await detail_of(jobs, "remove_marks") == "1 accounts"

    left = {row[0] for row in await database.fetch("SELECT user_id FROM memory_layer.user_state")}
    assert left == {late, bob}
    assert await database.fetchval("SELECT count(*) FROM memory_layer.daily_use") == 0


@pytest.fixture
async def people(pool, its_project):
    """Three people of the project with a memory each, the first of whom is deleted there."""
    people = sorted(uuid4() for _ in range(3))
    for who in people:
        await save(pool, who)
    its_project.users = set(people[1:]) | {uuid4() for _ in range(1_500)}
    return people


async def memories_left(database):
    return {row[0] for row in await database.fetch("SELECT user_id FROM memory_layer.memories")}


async def test_who_was_deleted_at_supabase_is_reported_and_erased_when_confirmed(
    database, jobs, missing, people
):
    assert await detail_of(jobs, "find_missing_users") == "1 missing"
    assert [user.user_id for user in await missing.list()] == [people[0]]
    assert await memories_left(database) == set(people)

    receipt = await missing.confirm_erasure(people[0])

    assert receipt.erased["memories"] == 1
    assert await memories_left(database) == set(people[1:])
    assert await missing.list() == []
    assert await detail_of(jobs, "find_missing_users") == "0 missing"


async def test_who_is_back_at_supabase_is_not_erased(database, missing, people, its_project):
    await missing.look()
    its_project.users.add(people[0])

    with pytest.raises(Conflict):
        await missing.confirm_erasure(people[0])
    with pytest.raises(NotFound):
        await missing.confirm_erasure(people[1])
    assert await missing.look() == "0 missing"

    assert await missing.list() == []
    assert await memories_left(database) == set(people)


@pytest.mark.parametrize("trouble", ["away", "forged_404"])
async def test_a_directory_that_does_not_answer_reports_and_erases_nobody(
    database, jobs, missing, people, its_project, trouble
):
    await missing.look()
    setattr(its_project, trouble, True)

    run = await jobs.run_now("find_missing_users")
    with pytest.raises(Unavailable):
        await missing.confirm_erasure(people[0])

    assert (run.outcome, run.detail) == ("failed", "DirectoryAway")
    assert [user.user_id for user in await missing.list()] == [people[0]]
    assert await memories_left(database) == set(people)


async def test_the_server_runs_its_jobs(settings, database, monkeypatch):
    monkeypatch.setattr("core.jobs.LOOK_EVERY", 0.05)
    async with app_client(settings):

        async def all_ran():
            rows = await database.fetch("SELECT outcome, what FROM memory_layer.job_runs")
            return rows and all(row["outcome"] == "ok" and row["what"] for row in rows)

        await until(all_ran)
