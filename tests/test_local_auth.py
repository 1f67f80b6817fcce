"""Sign-in without an identity provider: who gets in, for how long, and what goes wrong how."""

import asyncio
import json
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from core import refresh_tokens
from core.config import Settings
from core.errors import Unavailable
from core.passwords import MAX_WAITING, Passwords
from core.signing_keys import load_or_create_keys, thumbprint
from storage import accounts
from storage.database import acting_as, acting_as_worker, open_pool
from tests.conftest import PASSWORD, app_client
from tests.gate import open_gate

NEWER = {"x-supabase-api-version": "2024-01-01"}
ADA = "ada@example.com"


class Person:
    """Somebody with a client of their own, as supabase-js would be one."""

    def __init__(self, client, session):
        self.client = client
        self.session = session

    @property
    def user_id(self):
        return UUID(self.session["user"]["id"])

    @property
    def session_id(self):
        return UUID(claims_of(self.session)["session_id"])

    async def call(self, method, path, body=None):
        headers = NEWER | {"authorization": f"Bearer {self.session['access_token']}"}
        return await self.client.request(method, f"/auth/v1{path}", json=body, headers=headers)

    async def refresh(self, refresh_token=None):
        """Use the given token, or the current one, and keep what comes back."""
        answer = await refresh(self.client, refresh_token or self.session["refresh_token"])
        if answer.status_code == 200:
            self.session = answer.json()
        return answer


def claims_of(session):
    return jwt.decode(session["access_token"], options={"verify_signature": False})


async def post(client, path, body=None, **more):
    return await client.post(f"/auth/v1{path}", json=body, headers=NEWER, **more)


async def refresh(client, refresh_token):
    return await post(client, "/token?grant_type=refresh_token", {"refresh_token": refresh_token})


async def sign_in(client, email=ADA, password=PASSWORD):
    body = {"email": email, "password": password}
    return await post(client, "/token?grant_type=password", body)


async def new_person(client, email=ADA, data=None):
    answer = await post(client, "/signup", {"email": email, "password": PASSWORD, "data": data})
    assert answer.status_code == 200, answer.text
    return Person(client, answer.json())


async def another_device(client):
    answer = await sign_in(client)
    assert answer.status_code == 200, answer.text
    return Person(client, answer.json())


@pytest.fixture
async def ada(client):
    return await new_person(client)


async def age_sessions(database, seconds):
    """Let time pass for every session."""
    await database.execute(
        "UPDATE memory_layer_auth.sessions SET refreshed_at = refreshed_at - $1::interval",
        timedelta(seconds=seconds),
    )


def said(answer):
    assert answer.headers["x-sb-error-code"] == answer.json()["code"]
    return answer.status_code, answer.json()["code"]


async def test_a_new_account_can_use_the_memory_at_once(client, ada):
    headers = {"authorization": f"Bearer {ada.session['access_token']}"}

    assert (await client.get("/memories")).status_code == 401
    assert (await client.get("/memories", headers=headers)).status_code == 200


async def test_a_session_says_what_clients_read(ada):
    session, claims = ada.session, claims_of(ada.session)
    user = session["user"]

    assert session["token_type"] == "bearer"
    assert session["expires_in"] == claims["exp"] - claims["iat"] == 3600
    assert session["expires_at"] == claims["exp"]
    assert user["email"] == claims["email"] == ADA
    assert user["id"] == claims["sub"] == user["identities"][0]["user_id"]
    assert user["aud"] == user["role"] == claims["aud"] == claims["role"] == "authenticated"
    assert claims["iss"] == "http://127.0.0.1/auth/v1"
    assert claims["aal"] == "aal1"
    assert claims["amr"][0]["method"] == "password"
    assert claims["is_anonymous"] is user["is_anonymous"] is False


async def test_an_address_is_the_same_in_any_case(client, ada):
    assert (await sign_in(client, "ADA@Example.Com")).json()["user"]["email"] == ADA
    answer = await post(client, "/signup", {"email": "Ada@example.COM", "password": PASSWORD})
    assert said(answer) == (422, "user_already_exists")


async def test_a_wrong_password_and_an_unknown_address_are_told_alike(client, ada):
    wrong = await sign_in(client, password="not the password")
    unknown = await sign_in(client, "nobody@example.com")

    assert said(wrong) == (400, "invalid_credentials")
    assert (wrong.status_code, wrong.content) == (unknown.status_code, unknown.content)


REFUSED = [
    ("an anonymous sign-up", "POST", "/signup", {}, 422, "anonymous_provider_disabled"),
    ("no body", "POST", "/signup", None, 422, "anonymous_provider_disabled"),
    ("a telephone", "POST", "/signup", {"phone": "+491"}, 400, "phone_provider_disabled"),
    ("no password", "POST", "/signup", {"email": "a@b.c"}, 400, "validation_failed"),
    *(
        (f"the address {email!r}"[:60], "POST", "/signup", body, 400, "validation_failed")
        for email in ("a", "a@", "@b", "a@b@c", "a b@c.d", "a@b.c\n", "a@" + "b" * 319)
        for body in [{"email": email, "password": PASSWORD}]
    ),
    *(
        (f"a password of {len(word)}", "POST", "/signup", body, status, code)
        for word, status, code in (
            ("1234567", 422, "weak_password"),
            ("x" * 1025, 400, "validation_failed"),
        )
        for body in [{"email": "a@b.c", "password": word}]
    ),
    ("an account twice", "POST", "/signup", {"email": ADA, "password": PASSWORD}, 422,
     "user_already_exists"),
    ("much metadata", "POST", "/signup",
     {"email": "a@b.c", "password": PASSWORD, "data": {"text": "a" * 16_400}}, 400,
     "validation_failed"),
    ("no password to sign in", "POST", "/token?grant_type=password", {"email": ADA}, 400,
     "validation_failed"),
    ("no address to sign in", "POST", "/token?grant_type=password", {"password": PASSWORD}, 400,
     "validation_failed"),
    ("a very long password to sign in", "POST", "/token?grant_type=password",
     {"email": ADA, "password": "x" * 2000}, 400, "invalid_credentials"),
    ("a code to exchange", "POST", "/token?grant_type=pkce", {"auth_code": "a"}, 400,
     "invalid_credentials"),
    ("an unknown grant", "POST", "/token?grant_type=magic", {}, 400, "invalid_credentials"),
    ("no grant", "POST", "/token", {}, 400, "invalid_credentials"),
    ("no refresh token", "POST", "/token?grant_type=refresh_token", {}, 400,
     "validation_failed"),
    ("some text as refresh token", "POST", "/token?grant_type=refresh_token",
     {"refresh_token": "abc"}, 400, "refresh_token_not_found"),
    ("no bearer to read a user", "GET", "/user", None, 401, "no_authorization"),
    ("no bearer to change a user", "PUT", "/user", {"data": {}}, 401, "no_authorization"),
    ("no bearer to sign out", "POST", "/logout", None, 401, "no_authorization"),
    ("a lost password", "POST", "/recover", {"email": ADA}, 422, "email_provider_disabled"),
    ("a one-time password", "POST", "/otp", {"email": ADA}, 422, "email_provider_disabled"),
    ("a magic link", "POST", "/magiclink", {"email": ADA}, 422, "email_provider_disabled"),
    ("a mail again", "POST", "/resend", {"email": ADA}, 422, "email_provider_disabled"),
    ("a nonce by mail", "GET", "/reauthenticate", None, 422, "email_provider_disabled"),
    ("a code to verify", "POST", "/verify", {"token": "123456"}, 403, "otp_expired"),
    ("a link to verify", "GET", "/verify?token=123456", None, 403, "otp_expired"),
    ("somebody else's sign-in", "GET", "/authorize?provider=github", None, 400,
     "validation_failed"),
    ("the list of users", "GET", "/admin/users", None, 403, "not_admin"),
    ("deleting a user", "DELETE", f"/admin/users/{uuid4()}", None, 403, "not_admin"),
    ("an unknown address", "GET", "/nowhere", None, 404, "not_found"),
    ("an unknown method", "DELETE", "/user", None, 405, "validation_failed"),
    ("second factors", "POST", "/factors", {}, 404, "not_found"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"), [row[1:] for row in REFUSED],
    ids=[row[0] for row in REFUSED],
)  # fmt: skip
async def test_what_is_refused_says_why_in_the_protocol_s_words(
    client, ada, method, path, body, status, code
):
    answer = await client.request(method, f"/auth/v1{path}", json=body, headers=NEWER)

    assert said(answer) == (status, code)
    assert answer.headers["x-supabase-api-version"] == "2024-01-01"
    assert answer.json()["message"]


async def test_a_weak_password_is_told_with_its_reasons(client):
    answer = await post(client, "/signup", {"email": ADA, "password": "short"})

    assert answer.json()["weak_password"] == {"reasons": ["length"]}


async def test_a_client_of_the_older_protocol_reads_the_older_shape(client):
    answer = await client.get("/auth/v1/user")

    assert "x-supabase-api-version" not in answer.headers
    assert answer.headers["x-sb-error-code"] == "no_authorization"
    assert answer.json() == {
        "code": 401,
        "error_code": "no_authorization",
        "msg": "This endpoint requires a valid Bearer token",
    }


SENDABLE = {"email": "b@example.com", "password": PASSWORD}


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"{", id="half an object"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"text"', id="a text"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"[" * 100_000, id="brackets"),
        pytest.param(b'{"data":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001, id="deeply nested"),
        pytest.param(json.dumps(SENDABLE | {"email": 7}).encode(), id="a number as address"),
        pytest.param(json.dumps(SENDABLE | {"data": []}).encode(), id="a list as data"),
        pytest.param(json.dumps(SENDABLE | {"email": "a\0@b.c"}).encode(), id="NUL in the address"),
        pytest.param(json.dumps(SENDABLE | {"data": {"a": "\0"}}).encode(), id="NUL in the data"),
        pytest.param(json.dumps(SENDABLE | {"data": {"\0": 1}}).encode(), id="NUL in a name"),
        pytest.param(
            json.dumps(SENDABLE | {"password": "password\ud800"}).encode(), id="lone surrogate"
        ),
        pytest.param(
            json.dumps(SENDABLE | {"data": {"a": float("nan")}}).encode(), id="not a number"
        ),
        pytest.param(
            json.dumps(SENDABLE | {"data": {"a": 0}}).replace(": 0", ": 1e999").encode(),
            id="a number beyond all numbers",
        ),
    ],
)
async def test_a_body_that_cannot_be_stored_is_refused_and_never_quoted(client, raw):
    answer = await client.post("/auth/v1/signup", content=raw, headers=NEWER)

    assert said(answer) == (400, "bad_json")
    assert PASSWORD not in answer.text


async def test_backslashes_before_u0000_are_only_text(client):
    ada = await new_person(client, data={"regex": r"\u0000", "path": "\\\\u0000"})

    assert ada.session["user"]["user_metadata"] == {"regex": r"\u0000", "path": "\\\\u0000"}


@pytest.mark.parametrize("size", [1_000_001, 5_000_000])
async def test_a_large_body_is_refused(client, size):
    answer = await client.post("/auth/v1/signup", content=b" " * size, headers=NEWER)

    assert answer.status_code == 413


async def test_closed_for_new_people_still_lets_the_known_in(settings, client, ada):
    closed = settings.model_copy(update={"auth_disable_signup": True})
    async with app_client(closed) as client:
        answer = await post(client, "/signup", {"email": "b@example.com", "password": PASSWORD})

        assert said(answer) == (422, "signup_disabled")
        assert (await client.get("/auth/v1/settings")).json()["disable_signup"] is True
        assert (await sign_in(client)).status_code == 200


async def test_every_refresh_gives_a_new_token_of_the_same_session(ada):
    session_id, seen = ada.session_id, {ada.session["refresh_token"]}

    for _ in range(5):
        assert (await ada.refresh()).status_code == 200
        seen.add(ada.session["refresh_token"])

    assert len(seen) == 6
    assert ada.session_id == session_id
    assert (await ada.call("GET", "/user")).status_code == 200


async def test_a_client_that_lost_the_reply_asks_again(ada, database):
    spent = ada.session["refresh_token"]
    lost = (await refresh(ada.client, spent)).json()
    await age_sessions(database, 3600)

    assert (await ada.refresh(spent)).json()["refresh_token"] == lost["refresh_token"]
    assert (await ada.refresh()).status_code == 200


async def test_twenty_tabs_that_refresh_together_stay_signed_in(ada, database):
    first = ada.session["refresh_token"]

    answers = await asyncio.gather(*(refresh(ada.client, first) for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}
    [current] = {answer.json()["refresh_token"] for answer in answers}
    assert current != first
    await age_sessions(database, 3600)
    assert (await ada.refresh(current)).status_code == 200


async def test_a_slow_tab_with_an_older_token_gets_the_current_one(ada):
    oldest = ada.session["refresh_token"]
    for _ in range(3):
        await ada.refresh()
    current = ada.session["refresh_token"]

    assert (await ada.refresh(oldest)).json()["refresh_token"] == current


async def test_a_stolen_refresh_token_ends_the_session_for_both(ada, client, database):
    phone = await another_device(client)
    stolen = ada.session["refresh_token"]
    for _ in range(2):
        await ada.refresh()
    await age_sessions(database, 11)

    assert said(await refresh(client, stolen)) == (400, "refresh_token_already_used")
    assert said(await ada.refresh()) == (400, "refresh_token_not_found")
    assert said(await ada.call("GET", "/user")) == (403, "session_not_found")
    assert (await phone.refresh()).status_code == 200


async def test_a_session_ends_after_thirty_days_without_use(ada, database):
    await age_sessions(database, 30 * 24 * 3600 - 60)
    assert (await ada.refresh()).status_code == 200

    await age_sessions(database, 30 * 24 * 3600 + 60)
    assert said(await ada.refresh()) == (400, "session_expired")
    assert said(await ada.refresh()) == (400, "refresh_token_not_found")


async def test_signing_in_sweeps_away_sessions_that_have_ended(ada, client, database):
    await age_sessions(database, 31 * 24 * 3600)

    phone = await another_device(client)

    left = await database.fetch("SELECT id FROM memory_layer_auth.sessions")
    assert [row["id"] for row in left] == [phone.session_id]


async def test_a_forged_refresh_token_is_unknown_and_does_no_harm(ada, client, database):
    key = await database.fetchval(
        "SELECT refresh_key FROM memory_layer_auth.sessions WHERE id = $1", ada.session_id
    )
    genuine = ada.session["refresh_token"]
    forged = {
        "changed": ("A" if genuine[-20] != "A" else "B").join((genuine[:-20], genuine[-19:])),
        "cut": genuine[:-1],
        "longer": genuine + "A",
        "not ASCII": "é" * len(genuine),
        "of a session nobody has": refresh_tokens.issue(uuid4(), 0, key),
        "signed with another key": refresh_tokens.issue(ada.session_id, 0, bytes(32)),
        "from the future": refresh_tokens.issue(ada.session_id, 1, key),
        "of another version": "Ag" + genuine[2:],
    }

    for name, text in forged.items():
        assert said(await refresh(client, text)) == (400, "refresh_token_not_found"), name
    assert (await ada.refresh()).status_code == 200


@pytest.mark.parametrize(
    ("scope", "here", "there"),
    [
        ("?scope=global", False, False),
        ("", False, False),
        ("?scope=local", False, True),
        ("?scope=others", True, False),
    ],
)
async def test_signing_out(client, ada, scope, here, there):
    phone = await another_device(client)
    bob = await new_person(client, "bob@example.com")

    assert (await ada.call("POST", f"/logout{scope}")).status_code == 204

    for person, stays in ((ada, here), (phone, there), (bob, True)):
        assert ((await person.call("GET", "/user")).status_code == 200) is stays
        assert ((await person.refresh()).status_code == 200) is stays


async def test_an_unknown_way_to_sign_out_is_refused(ada):
    assert said(await ada.call("POST", "/logout?scope=all")) == (400, "validation_failed")


async def test_a_new_password_signs_out_every_other_device(client, ada):
    phone = await another_device(client)

    answer = await ada.call("PUT", "/user", {"password": "another good password"})

    assert answer.status_code == 200
    assert (await ada.refresh()).status_code == 200
    assert said(await phone.refresh()) == (400, "refresh_token_not_found")
    assert said(await sign_in(client)) == (400, "invalid_credentials")
    assert (await sign_in(client, password="another good password")).status_code == 200


async def test_a_sign_in_that_was_slower_than_the_new_password_fails(ada, database_url):
    async with (
        open_pool(database_url, 1, 1) as pool,
        accounts.acting_as_auth(pool) as conn,
    ):
        known = await accounts.credentials(conn, ADA)
        assert known == (ada.user_id, known[1])
        begun = await accounts.begin_session(conn, uuid4(), ada.user_id, "the old hash", b"key")

    assert begun is None


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"password": PASSWORD}, 422, "same_password"),
        ({"password": "short"}, 422, "weak_password"),
        ({"password": "good enough", "current_password": "wrong"}, 400, "invalid_credentials"),
        ({"email": "not an address"}, 400, "validation_failed"),
        ({"email": "bob@example.com"}, 422, "email_exists"),
        ({"email": "BOB@example.com"}, 422, "email_exists"),
        ({"phone": "+491"}, 400, "phone_provider_disabled"),
        ({"app_metadata": {"tier": "pro"}}, 403, "not_admin"),
        ({"data": {"text": "a" * 17_000}}, 400, "validation_failed"),
    ],
)
async def test_a_change_that_is_refused_changes_nothing(client, ada, change, status, code):
    await new_person(client, "bob@example.com")
    before = (await ada.call("GET", "/user")).json()

    answer = await ada.call("PUT", "/user", {"data": {"name": "Ada"}} | change)

    assert said(answer) == (status, code)
    assert (await ada.call("GET", "/user")).json() == before
    assert (await sign_in(client)).status_code == 200


async def test_metadata_is_merged_and_null_takes_a_name_away(ada):
    await ada.call("PUT", "/user", {"data": {"name": "Ada", "theme": {"dark": True}}})

    answer = await ada.call("PUT", "/user", {"data": {"name": None, "language": "en"}})

    assert answer.json()["user_metadata"] == {"theme": {"dark": True}, "language": "en"}


async def test_two_changes_at_the_same_time_both_stay(ada):
    names = [f"name_{n}" for n in range(8)]

    await asyncio.gather(*(ada.call("PUT", "/user", {"data": {name: 1}}) for name in names))

    user = (await ada.call("GET", "/user")).json()
    assert user["user_metadata"] == dict.fromkeys(names, 1)


async def test_much_metadata_does_not_make_tokens_that_are_too_long(client):
    ada = await new_person(client, data={"text": "a" * 16_000})
    small = await new_person(client, "small@example.com", data={"name": "é" * 100})

    assert (await ada.call("GET", "/user")).json()["user_metadata"] == {"text": "a" * 16_000}
    assert claims_of(ada.session)["user_metadata"] == {}
    assert claims_of(small.session)["user_metadata"] == {"name": "é" * 100}


async def test_a_new_address_takes_the_place_of_the_old(client, ada):
    answer = await ada.call("PUT", "/user", {"email": "Countess@example.com"})

    assert answer.json()["email"] == "countess@example.com"
    assert said(await sign_in(client)) == (400, "invalid_credentials")
    assert (await sign_in(client, "countess@example.com")).status_code == 200


async def test_a_token_that_is_not_ours_is_refused(client, ada):
    header, claims, signature = ada.session["access_token"].split(".")
    ada.session["access_token"] = f"{header}.{claims}.{'A' * len(signature)}"

    assert said(await ada.call("GET", "/user")) == (403, "bad_jwt")


async def test_a_token_of_a_deleted_user_finds_no_user(ada, database):
    await database.execute("DELETE FROM memory_layer_auth.users WHERE id = $1", ada.user_id)

    assert said(await ada.call("GET", "/user")) == (403, "user_not_found")
    assert said(await ada.refresh()) == (400, "refresh_token_not_found")


async def test_anyone_can_check_a_signature_and_nobody_can_make_one(client, ada):
    answer = await client.get("/auth/v1/.well-known/jwks.json")
    [key] = answer.json()["keys"]

    assert "max-age" in answer.headers["cache-control"]
    assert {"d", "p", "q", "k"}.isdisjoint(key)
    jwt.decode(
        ada.session["access_token"],
        jwt.PyJWK(key).key,
        algorithms=["ES256"],
        audience="authenticated",
    )
    assert jwt.get_unverified_header(ada.session["access_token"])["kid"] == key["kid"]


async def test_no_password_and_no_refresh_token_is_stored(ada, database):
    rows = await database.fetch(
        "SELECT u::text || s::text AS all FROM memory_layer_auth.users u,"
        " memory_layer_auth.sessions s"
    )
    [stored] = [row["all"] for row in rows]

    assert "$argon2id$" in stored
    assert PASSWORD not in stored
    assert ada.session["refresh_token"] not in stored


@pytest.mark.parametrize("table", ["users", "sessions", "signing_keys"])
async def test_the_roles_that_serve_memories_cannot_read_accounts(database_url, table):
    async with open_pool(database_url, 1, 1) as pool:
        for acting in (acting_as(pool, uuid4()), acting_as_worker(pool)):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with acting as conn:
                    await conn.fetch(f"SELECT * FROM memory_layer_auth.{table}")
        async with accounts.acting_as_auth(pool) as conn:
            assert await conn.fetch(f"SELECT * FROM memory_layer_auth.{table}") == []
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.fetch("SELECT * FROM memory_layer.memories")


async def test_replicas_that_start_together_share_one_key(database_url):
    async with open_pool(database_url, 8, 8) as pool:
        replicas = await asyncio.gather(*(load_or_create_keys(pool) for _ in range(8)))

    [published] = {json.dumps(keys.published()) for keys in replicas}
    assert len(json.loads(published)["keys"]) == 1


async def test_people_stay_signed_in_over_a_restart(settings, client, ada):
    async with app_client(settings) as restarted:
        ada.client = restarted

        assert (await ada.call("GET", "/user")).status_code == 200
        assert (await ada.refresh()).status_code == 200


async def test_tokens_of_the_key_before_stay_good(settings, client, ada, database):
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    kid = thumbprint(key.public_key())
    await database.execute(
        "INSERT INTO memory_layer_auth.signing_keys (kid, private_pem) VALUES ($1, $2)", kid, pem
    )

    async with app_client(settings) as restarted:
        ada.client = restarted
        assert (await ada.call("GET", "/user")).status_code == 200
        assert len((await restarted.get("/auth/v1/.well-known/jwks.json")).json()["keys"]) == 2
        await ada.refresh()
        assert jwt.get_unverified_header(ada.session["access_token"])["kid"] == kid
        assert (await ada.call("GET", "/user")).status_code == 200


async def test_a_client_can_ask_what_this_server_is(client):
    settings = (await client.get("/auth/v1/settings")).json()
    health = (await client.get("/auth/v1/health")).json()

    assert settings["external"]["email"] is True
    assert settings["external"]["anonymous_users"] is False
    assert settings["mailer_autoconfirm"] is True
    assert health["name"] == "GoTrue"


async def test_with_supabase_nobody_signs_in_here(database_url):
    settings = Settings(
        _env_file=None,
        database_url=database_url,
        embedder="none",
        supabase_url="https://project.supabase.co",
    )
    async with app_client(settings) as client:
        client.base_url = "http://127.0.0.1:8000"
        for answer in (
            await post(client, "/signup", {"email": ADA, "password": PASSWORD}),
            await client.get("/auth/v1/health", headers=NEWER),
            await client.get("/auth/v1/.well-known/jwks.json", headers=NEWER),
        ):
            assert said(answer) == (404, "not_found")


@pytest.fixture
async def gate(database_url):
    async with open_gate(database_url) as gate:
        yield gate


@pytest.fixture
async def client_of_gate(gate, settings):
    through = Settings(_env_file=None, database_url=gate.url, embedder="none")
    async with app_client(through) as client:
        yield client


async def test_nobody_is_signed_out_because_the_database_is_away(gate, client_of_gate):
    ada = await new_person(client_of_gate)
    gate.close()

    answers = [
        await post(client_of_gate, "/signup", {"email": "b@example.com", "password": PASSWORD}),
        await sign_in(client_of_gate),
        await ada.refresh(),
        await ada.call("GET", "/user"),
        await ada.call("PUT", "/user", {"data": {"name": "Ada"}}),
        await ada.call("PUT", "/user", {"password": "another good password"}),
        await ada.call("POST", "/logout"),
    ]

    assert {said(answer) for answer in answers} == {(503, "unexpected_failure")}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    await gate.open()
    assert (await ada.refresh()).status_code == 200
    assert (await ada.call("GET", "/user")).status_code == 200


async def test_a_refresh_that_cannot_get_its_turn_may_be_tried_again(ada, database):
    async with database.transaction():
        await database.execute("SELECT 1 FROM memory_layer_auth.sessions FOR UPDATE")
        assert said(await ada.refresh()) == (503, "unexpected_failure")

    assert (await ada.refresh()).status_code == 200


async def test_a_crowd_at_the_door_is_told_to_come_back():
    passwords = Passwords()

    asked = [passwords.matches(None, PASSWORD) for _ in range(MAX_WAITING + 5)]
    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert answers.count(False) == MAX_WAITING
    assert [type(answer) for answer in answers if answer is not False] == [Unavailable] * 5
    passwords.close()


async def test_the_wire_carries_no_secret_that_a_proxy_may_keep(client, ada):
    answers: list[httpx.Response] = [await sign_in(client), await ada.call("GET", "/user")]

    assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}
