"""A client saves prompts and answers: word for word, once, in any order."""

import asyncio
from uuid import uuid4

import pytest

from tests.conftest import app_client, sign_up

PROVIDER = {"provider": "chatgpt"}


async def save_prompt(client, user, prompt="How do I sort a list?", **more):
    return await client.post(
        "/save-prompt", json=PROVIDER | {"prompt": prompt} | more, headers=user
    )


async def save_response(client, user, memory_id, response="With sorted().", **more):
    body = {"memory_id": memory_id, "response": response} | more
    return await client.post("/save-response", json=body, headers=user)


async def read(client, user, memory_id):
    answer = await client.get(f"/memories/{memory_id}", headers=user)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


TEXTS = {
    "emoji": "👩‍👩‍👧‍👦 café naïve 🇩🇪",
    "right to left": "שלום مرحبا \u202eabc\u202c",
    "line ends": "a\r\nb\rc\n\n\td ",
    "looks escaped": r'\u0000 \ud800 "quoted" \\ %s {} $1',
    "markup": "<script>alert(1)</script>&amp;",
    "combining, not normalised": "e\u0301 \u212b ﬁ",
    "controls but NUL": "".join(map(chr, range(1, 32))) + "x\x7f\x80\u2028\ufeff",
    "last code points": "\uffff\U0010ffff",
    "a mebibyte of code": ("def f(x):\n\treturn x  # ok\n" * 40_000)[: 1024 * 1024],
    "a mebibyte of emoji": "🦜" * (1024 * 1024 // 4),
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in TEXTS.items()])
async def test_texts_come_back_byte_for_byte(client, alice, text):
    saved = (await save_prompt(client, alice, text)).json()["data"]
    await save_response(client, alice, saved["memory_id"], text)

    memory = await read(client, alice, saved["memory_id"])

    assert memory["prompt"] == text
    assert memory["response"] == text


async def test_everything_known_about_a_turn_is_kept(client, alice):
    memory_id = str(uuid4())
    facts = {
        "model": "gpt-9",
        "conversation_id": "c-1",
        "conversation_title": "Sorting",
        "url": "https://chatgpt.com/c/c-1",
        "source": "extension",
        "occurred_at": "2025-03-01T12:00:00+02:00",
        "metadata": {"attachments": ["a.pdf"], "n": 1.5, "ü": None},
    }

    await save_prompt(client, alice, id=memory_id, **facts)

    memory = await read(client, alice, memory_id)
    assert memory["occurred_at"] == "2025-03-01T10:00:00Z"
    assert {name: memory[name] for name in facts if name != "occurred_at"} == {
        name: value for name, value in facts.items() if name != "occurred_at"
    }
    assert memory["status"] == "waiting"


async def test_saving_again_answers_200_with_the_same_body(client, alice):
    memory_id = str(uuid4())

    first = await save_prompt(client, alice, id=memory_id)
    again = await save_prompt(client, alice, id=memory_id)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()


async def test_another_prompt_under_the_same_id_is_a_conflict(client, alice):
    memory_id = str(uuid4())
    await save_prompt(client, alice, "one", id=memory_id)

    answer = await save_prompt(client, alice, "two", id=memory_id)

    assert answer.status_code == 409
    assert answer.json()["error_code"] == "CONFLICT"
    assert (await read(client, alice, memory_id))["prompt"] == "one"


async def test_an_answer_may_arrive_before_its_prompt(client, alice):
    memory_id = str(uuid4())

    early = await save_response(client, alice, memory_id, conversation_title="From the answer")
    alone = await read(client, alice, memory_id)
    late = await save_prompt(client, alice, id=memory_id, conversation_title="From the prompt")

    assert early.status_code == 200
    assert (alone["prompt"], alone["prompt_missing"], alone["provider"]) == (None, True, "unknown")
    assert late.status_code == 201
    memory = await read(client, alice, memory_id)
    assert (memory["prompt_missing"], memory["provider"], memory["status"]) == (
        False,
        "chatgpt",
        "complete",
    )
    assert memory["conversation_title"] == "From the answer"


async def test_an_answer_without_a_prompt_is_found(client, alice):
    await save_response(client, alice, str(uuid4()), "The capital of Mongolia is Ulaanbaatar.")

    hits = await client.post("/search", json={"query": "Ulaanbaatar"}, headers=alice)

    assert [hit["matched"] for hit in hits.json()["data"]["hits"]] == ["response"]


async def test_order_of_arrival_makes_no_difference(client, alice):
    facts = {"conversation_id": "c", "metadata": {"k": "answer"}, "model": "m-answer"}
    told = {"metadata": {"k": "prompt", "p": 1}, "model": "m-prompt", "url": "https://x.example"}
    one, two = str(uuid4()), str(uuid4())

    await save_prompt(client, alice, id=one, occurred_at="2025-01-01T00:00:00Z", **told)
    await save_response(client, alice, one, **facts)
    await save_response(client, alice, two, **facts)
    await save_prompt(client, alice, id=two, occurred_at="2025-01-01T00:00:00Z", **told)

    first, second = await read(client, alice, one), await read(client, alice, two)
    for memory in (first, second):
        for name in ("id", "created_at", "updated_at"):
            del memory[name]
    assert first == second
    assert first["metadata"] == {"k": "answer", "p": 1}


async def test_a_partial_answer_grows_and_is_completed(client, alice):
    memory_id = (await save_prompt(client, alice)).json()["data"]["memory_id"]

    for text, status in (
        ("With", "partial"),
        ("With sor", "partial"),
        ("With sorted().", "complete"),
    ):
        answer = await save_response(client, alice, memory_id, text, status=status)
        assert answer.status_code == 200
        assert (await read(client, alice, memory_id))["status"] == status

    assert (await read(client, alice, memory_id))["response"] == "With sorted()."


async def test_late_partials_change_nothing(client, alice):
    memory_id = (await save_prompt(client, alice)).json()["data"]["memory_id"]
    await save_response(client, alice, memory_id, "With sor", status="partial")

    shorter = await save_response(client, alice, memory_id, "With", status="partial")
    assert (await read(client, alice, memory_id))["response"] == "With sor"
    await save_response(client, alice, memory_id, "With sorted().")
    late = await save_response(client, alice, memory_id, "With sor", status="partial")

    assert (shorter.status_code, late.status_code) == (200, 200)
    memory = await read(client, alice, memory_id)
    assert (memory["response"], memory["status"]) == ("With sorted().", "complete")


async def test_another_complete_answer_is_a_conflict(client, alice):
    memory_id = (await save_prompt(client, alice)).json()["data"]["memory_id"]
    await save_response(client, alice, memory_id, "one")

    same = await save_response(client, alice, memory_id, "one")
    other = await save_response(client, alice, memory_id, "two")

    assert (same.status_code, other.status_code) == (200, 409)
    assert (await read(client, alice, memory_id))["response"] == "one"


async def test_a_retry_after_an_edit_does_not_undo_it(client, alice):
    memory_id = str(uuid4())
    first = await save_prompt(client, alice, "tpyo", id=memory_id)
    await client.patch(f"/memories/{memory_id}", json={"prompt": "typo"}, headers=alice)

    retry = await save_prompt(client, alice, "tpyo", id=memory_id)

    assert retry.status_code == 200
    assert retry.json() == first.json()
    assert (await read(client, alice, memory_id))["prompt"] == "typo"


async def test_an_edited_partial_answer_is_not_overwritten(client, alice):
    memory_id = (await save_prompt(client, alice)).json()["data"]["memory_id"]
    await save_response(client, alice, memory_id, "With sor", status="partial")
    await client.patch(f"/memories/{memory_id}", json={"response": "mine"}, headers=alice)

    answer = await save_response(client, alice, memory_id, "With sorted().")

    assert answer.status_code == 409
    assert (await read(client, alice, memory_id))["response"] == "mine"


async def test_a_corrected_prompt_does_not_keep_its_answer_out(client, alice):
    memory_id = (await save_prompt(client, alice, "tpyo")).json()["data"]["memory_id"]
    await save_response(client, alice, memory_id, "With sor", status="partial")
    await client.patch(f"/memories/{memory_id}", json={"prompt": "typo"}, headers=alice)

    answer = await save_response(client, alice, memory_id, "With sorted().")

    assert answer.status_code == 200
    memory = await read(client, alice, memory_id)
    assert (memory["prompt"], memory["response"]) == ("typo", "With sorted().")


async def test_an_answer_of_ones_own_is_not_overwritten_by_a_late_capture(client, alice):
    memory_id = (await save_prompt(client, alice)).json()["data"]["memory_id"]
    await client.patch(f"/memories/{memory_id}", json={"response": "my own note"}, headers=alice)

    answer = await save_response(client, alice, memory_id, "With sorted().")

    assert answer.status_code == 409
    assert (await read(client, alice, memory_id))["response"] == "my own note"


async def test_an_empty_title_does_not_lose_the_turn(client, alice):
    empty = dict.fromkeys(("model", "conversation_id", "conversation_title", "url", "source"), "")

    saved = await save_prompt(client, alice, **empty)

    memory = await read(client, alice, saved.json()["data"]["memory_id"])
    assert {memory[name] for name in empty} == {None}


async def test_nothing_resurrects_a_deleted_memory(client, alice, database):
    memory_id = str(uuid4())
    first = await save_prompt(client, alice, "secret", id=memory_id)
    await client.delete(f"/memories/{memory_id}", headers=alice)

    retry = await save_prompt(client, alice, "secret", id=memory_id)
    answer = await save_response(client, alice, memory_id, "secret answer")

    assert (retry.status_code, answer.status_code) == (200, 200)
    assert retry.json() == first.json()
    assert (await client.get(f"/memories/{memory_id}", headers=alice)).status_code == 404
    row = await database.fetchrow("SELECT prompt, response FROM memory_layer.memories")
    assert tuple(row) == (None, None)


async def test_the_same_memory_many_times_at_once_is_there_once(client, alice):
    memory_id = str(uuid4())

    answers = await asyncio.gather(
        *(save_prompt(client, alice, "once", id=memory_id) for _ in range(20)),
        *(save_response(client, alice, memory_id, "answer") for _ in range(20)),
        *(save_prompt(client, alice, "other", id=memory_id) for _ in range(5)),
    )

    assert [a.status_code for a in answers[:20]].count(201) == 1
    assert {a.status_code for a in answers[1:40]} <= {200, 201}
    assert {a.status_code for a in answers[40:]} == {409}
    assert len((await client.get("/memories", headers=alice)).json()["data"]["memories"]) == 1


async def test_two_people_may_use_the_same_id(client, alice, bob):
    memory_id = str(uuid4())

    answers = [
        await save_prompt(client, alice, "hers", id=memory_id),
        await save_prompt(client, bob, "his", id=memory_id),
    ]

    assert [a.status_code for a in answers] == [201, 201]
    assert (await read(client, alice, memory_id))["prompt"] == "hers"
    assert (await read(client, bob, memory_id))["prompt"] == "his"


async def test_a_bad_row_fails_alone(client, alice, database):
    # What validation lets through and the database refuses, made here by a rule of its own.
    await database.execute(
        "ALTER TABLE memory_layer.memories ADD CONSTRAINT no_poison CHECK (prompt <> 'poison')"
    )

    answers = await asyncio.gather(
        *(save_prompt(client, alice, text) for text in ("a", "b", "poison", "c"))
    )

    assert [a.status_code for a in answers] == [201, 201, 400, 201]


async def test_a_full_queue_says_when_to_come_back(settings, database):
    generous = settings.model_copy(update={"enterprise_per_minute": 10_000})
    async with app_client(generous) as client:
        alice = await sign_up(client, "alice")
        await client.get("/memories", headers=alice)
        refused, answers = await overfill(client, alice, database)

    assert refused.status_code == 503
    assert refused.json()["error_code"] == "UNAVAILABLE"
    assert int(refused.headers["Retry-After"]) > 0
    saved = [a for a in answers if a.status_code == 201]
    assert 2_000 <= len(saved) < 2_400
    count = await database.fetchval("SELECT count(*) FROM memory_layer.memories")
    assert count == len(saved)


async def overfill(client, alice, database):
    async with database.transaction():
        await database.execute("LOCK TABLE memory_layer.user_state IN ACCESS EXCLUSIVE MODE")
        waiting = [asyncio.create_task(save_prompt(client, alice, f"n {n}")) for n in range(2_400)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        refused = done.pop().result()
    return refused, await asyncio.gather(*waiting)
