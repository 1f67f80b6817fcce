"""Who has no account yet is known by the address, and no header of a stranger's changes it."""

from contextlib import asynccontextmanager
from types import SimpleNamespace
from uuid import uuid4

import pytest
from pydantic import ValidationError
from starlette.datastructures import Headers as RequestHeaders

from core.addresses import client_address, group_of, networks
from core.bad_tokens import MOST_ADDRESSES, BadTokens
from core.config import Settings
from core.errors import TooManyRequests
from routers.addresses import COUNTERS, AddressLimits
from tests.conftest import PASSWORD, app_client, sign_up

PROXIES = ("10.0.0.0/8", "2001:db8:1::/48", "192.0.2.7")


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        pytest.param("203.0.113.9", [], "203.0.113.9", id="nobody stands between"),
        pytest.param("203.0.113.9", ["198.51.100.1"], "203.0.113.9", id="a stranger's header"),
        pytest.param("10.0.0.1", ["203.0.113.9"], "203.0.113.9", id="our proxy's header"),
        pytest.param("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9", id="forged at the left"),
        pytest.param("10.0.0.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9", id="in two lines"),
        pytest.param("10.0.0.1", ["203.0.113.9, 192.0.2.7"], "203.0.113.9", id="two proxies"),
        pytest.param(
            "10.0.0.1", ["10.9.9.9, 203.0.113.9, 10.0.0.2"], "203.0.113.9", id="forged as ours"
        ),
        pytest.param("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9", id="with a port"),
        pytest.param("10.0.0.1", ["[2001:db8:2::1]:80"], "2001:db8:2::1", id="v6 with a port"),
        pytest.param("2001:db8:1::5", ["2001:db8:2::1"], "2001:db8:2::1", id="v6 all the way"),
        pytest.param("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9", id="v4 within v6"),
        pytest.param(
            "10.0.0.1", ["203.0.113.9, unknown"], "10.0.0.1", id="no address at the right"
        ),
        pytest.param("10.0.0.1", [""], "10.0.0.1", id="empty"),
        pytest.param("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3", id="nothing but proxies"),
        pytest.param(None, ["203.0.113.9"], "unknown", id="no peer"),
    ],
)
def test_the_address_is_the_last_one_that_is_no_proxy_of_ours(peer, forwarded, expected):
    assert client_address(peer, forwarded, networks(PROXIES)) == expected


def test_nobody_is_trusted_unless_the_operator_says_so():
    for peer in ("127.0.0.1", "10.0.0.1", "::1"):
        assert (
            client_address(peer, ["203.0.113.9"], Settings(_env_file=None).trusted_proxies) == peer
        )


def test_the_proxies_of_a_hosting_company_have_names():
    trusted = Settings(_env_file=None, trusted_proxies="private, cloudflare").trusted_proxies

    assert client_address("10.21.157.68", ["6.6.6.6, 99.61.165.29, 104.22.17.40"], trusted) == (
        "99.61.165.29"
    )


@pytest.mark.parametrize("wrong", ["*", "all", "10.0.0.1/8", "10.0.0.0/99", "proxy.example.com"])
def test_a_wrong_proxy_stops_the_start(wrong):
    with pytest.raises(ValidationError):
        Settings(_env_file=None, trusted_proxies=wrong)


def test_an_ipv6_network_is_one_client():
    assert group_of("2001:db8:2:3::1") == group_of("2001:db8:2:3:ffff::9") != group_of("2001:db8::")
    assert group_of("203.0.113.9") != group_of("203.0.113.10")


@asynccontextmanager
async def limited(settings, **changed):
    """A server behind a proxy at the address that the test's client has."""
    changed |= {"trusted_proxies": networks(["loopback"])}
    async with app_client(settings.model_copy(update=changed)) as client:
        yield client


def at(address, **headers):
    return {"X-Forwarded-For": address, **headers}


async def try_sign_up(client, address, **headers):
    body = {"email": f"{uuid4().hex[:8]}@example.com", "password": PASSWORD}
    return await client.post("/auth/v1/signup", json=body, headers=at(address, **headers))


async def test_an_address_makes_only_so_many_accounts_an_hour(settings):
    async with limited(settings, sign_ups_per_hour=2) as client:
        for _ in range(2):
            assert (await try_sign_up(client, "203.0.113.9")).status_code == 200

        refused = await try_sign_up(client, "203.0.113.9")

        assert refused.status_code == 429
        assert refused.json()["error_code"] == "over_request_rate_limit"
        assert refused.headers["x-sb-error-code"] == "over_request_rate_limit"
        assert 1 <= int(refused.headers["Retry-After"]) <= 3_600
        version = {"x-supabase-api-version": "2024-01-01"}
        dated = await try_sign_up(client, "203.0.113.9", **version)
        assert dated.json()["code"] == "over_request_rate_limit"
        forged = await try_sign_up(client, "1.2.3.4, 203.0.113.9")
        assert forged.status_code == 429
        assert (await try_sign_up(client, "203.0.113.10")).status_code == 200


async def test_an_address_guesses_only_so_many_passwords_a_minute(settings):
    async with limited(settings, sign_ins_per_minute=3) as client:
        alice = await sign_up(client, "alice")
        email = (await client.get("/auth/v1/user", headers=alice)).json()["email"]

        async def sign_in(password, address="203.0.113.9", grant="password"):
            body = {"email": email, "password": password, "refresh_token": "x"}
            where = f"/auth/v1/token?grant_type={grant}"
            return (await client.post(where, json=body, headers=at(address))).status_code

        assert [await sign_in("guess") for _ in range(4)] == [400, 400, 400, 429]
        assert await sign_in(PASSWORD) == 429
        assert await sign_in(PASSWORD, "203.0.113.10") == 200
        assert await sign_in("x", grant="refresh_token") == 400
        erase = {"json": {"password": "guess"}, "headers": at("203.0.113.9", **alice)}
        guessed = await client.request("DELETE", "/account", **erase)
        assert (guessed.status_code, guessed.json()["error_code"]) == (429, "TOO_MANY_REQUESTS")


async def test_who_keeps_sending_bad_tokens_is_refused_before_they_are_verified(settings):
    async with limited(settings, bad_tokens_per_minute=5) as client:
        alice, bob = await sign_up(client, "alice"), await sign_up(client, "bob")
        known, unknown = at("203.0.113.9", **alice), at("203.0.113.9", **bob)
        assert (await client.get("/memories", headers=known)).status_code == 200

        async def status_of(headers, path="/memories"):
            return (await client.get(path, headers=headers)).status_code

        bad = at("203.0.113.9", Authorization=f"Bearer {bob['Authorization'][7:-4]}AAAA")
        assert [await status_of(bad) for _ in range(7)] == [401] * 5 + [429] * 2

        answer = await client.get("/memories", headers=bad)
        assert answer.json()["error_code"] == "TOO_MANY_REQUESTS"
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert answer.json()["details"]["limit"] == 5
        assert await status_of(bad, "/auth/v1/user") == 429
        assert await status_of(known) == 200
        assert await status_of(known, "/auth/v1/user") == 200
        assert await status_of(unknown) == 429
        assert await status_of(at("203.0.113.10", **bob)) == 200
        assert await status_of(unknown) == 200, "verified for another address, and remembered"


async def test_a_missing_token_is_no_bad_one(settings):
    async with limited(settings, bad_tokens_per_minute=1) as client:
        for _ in range(5):
            assert (await client.get("/memories")).status_code == 401
            assert (await client.get("/auth/v1/user")).status_code == 401


def test_an_address_that_comes_to_its_senses_is_heard_again():
    bad_tokens = BadTokens(2)
    for _ in range(2):
        bad_tokens.note("203.0.113.9")
    with pytest.raises(TooManyRequests):
        bad_tokens.check("203.0.113.9")
    bad_tokens.check("203.0.113.10")


def test_however_many_addresses_there_are_the_memory_is_bounded(settings):
    limits, bad_tokens = AddressLimits(settings), BadTokens(2)
    state = SimpleNamespace(resources=SimpleNamespace(settings=settings))
    for n in range(3 * COUNTERS):
        address = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        request = SimpleNamespace(
            client=SimpleNamespace(host=address), headers=RequestHeaders(), state=state
        )
        limits.spend("sign_in", request)
        bad_tokens.note(address)

    assert len(limits._limiter._storage.storage) <= COUNTERS
    assert len(bad_tokens._counters._users) <= MOST_ADDRESSES
