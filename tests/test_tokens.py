"""Which access tokens are believed, and where the keys come from."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from core.auth import (
    CACHE_SIZE,
    JUST_NOW,
    MAX_TOKEN,
    TokenVerifier,
    User,
    signed_in_just_now,
)
from core.config import SettingsError
from core.errors import Unauthorized, Unavailable
from core.jwks import COOLDOWN, FRESH_FOR, MAX_BYTES, REFRESH_AFTER, STALE_FOR, RemoteKeys

ISSUER = "https://project.supabase.co/auth/v1"
KEYS_URL = f"{ISSUER}/.well-known/jwks.json"
SECRET = "legacy-secret-of-the-project-with-enough-bytes"
NOW = int(time.time())
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGERS_KEY = ec.generate_private_key(ec.SECP256R1())
USER_ID = uuid4()
SESSION_ID = uuid4()
CLAIMS = {
    "iss": ISSUER,
    "aud": "authenticated",
    "role": "authenticated",
    "sub": str(USER_ID),
    "session_id": str(SESSION_ID),
    "email": "ada@example.com",
    "iat": NOW,
    "exp": NOW + 3600,
}


class Clock:
    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


class KeyServer:
    """An identity provider's key set, at the wire; `reply` takes the place of its usual answer."""

    def __init__(self):
        self.keys = [published(EC_KEY, "ec-1"), published(RSA_KEY, "rsa-1")]
        self.reply = None
        self.requests = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, request):
        self.requests.append(str(request.url))
        await self.open.wait()
        if callable(self.reply):
            return self.reply(request)
        return self.reply or httpx.Response(200, json={"keys": self.keys})


def published(key, kid, **members):
    algorithm, name = (
        (ECAlgorithm, "ES256")
        if isinstance(key, ec.EllipticCurvePrivateKey)
        else (RSAAlgorithm, "RS256")
    )
    about = {"kid": kid, "alg": name, "use": "sig", "key_ops": ["verify"]}
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **about, **members}


def encoded(part):
    content = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def sign_es256(message, key=EC_KEY):
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def token(header=None, claims=None, sign=sign_es256):
    """Sign whatever is asked for, sense or nonsense, with the provider's own EC key."""
    header = {"alg": "ES256", "typ": "JWT", "kid": "ec-1"} if header is None else header
    claims = CLAIMS if claims is None else claims
    message = f"{encoded(header)}.{encoded(claims)}"
    return f"{message}.{encoded(sign(message.encode()))}"


def saying(**changes):
    """A token well signed that says other things; a claim of None is left out."""
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return token(claims=claims)


def padded(length):
    return saying(user_metadata={"text": "a" * length})


def headed(**changes):
    return token(header={"alg": "ES256", "typ": "JWT", "kid": "ec-1", **changes})


def hs256(secret, header=None, **changes):
    key = secret if isinstance(secret, bytes) else secret.encode()
    return token(
        {"alg": "HS256", "typ": "JWT", **(header or {})},
        {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None},
        lambda message: hmac.digest(key, message, hashlib.sha256),
    )


def from_stranger(**header):
    sign = lambda message: sign_es256(message, STRANGERS_KEY)  # noqa: E731
    return token({"alg": "ES256", "kid": "ec-1", **header}, sign=sign)


def unsigned(algorithm):
    return f"{encoded({'alg': algorithm, 'kid': 'ec-1'})}.{encoded(CLAIMS)}."


def good():
    return token()


def rs256(message, scheme=None):
    return RSA_KEY.sign(message, scheme or padding.PKCS1v15(), SHA256())


def pss(message):
    return rs256(message, padding.PSS(padding.MGF1(SHA256()), 32))


def der(message):
    return EC_KEY.sign(message, ec.ECDSA(SHA256()))


def tampered():
    header, _, signature = good().split(".")
    return f"{header}.{encoded({**CLAIMS, 'sub': str(uuid4())})}.{signature}"


def flipped():
    start, signature = good().rsplit(".", 1)
    return f"{start}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


def raw_json(text):
    return token(claims=text.encode())


def with_raw(name, value):
    """The claims with a value that Python's own JSON writer would not write."""
    return raw_json(json.dumps({**CLAIMS, name: 0}).replace(f'"{name}": 0', f'"{name}": {value}'))


PUBLIC = EC_KEY.public_key()
PEM = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DER = PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
POINT = PUBLIC.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
STRANGERS_JWK = published(STRANGERS_KEY, "stranger")
ED_KEY = ed25519.Ed25519PrivateKey.generate()

REFUSED = {
    "empty": lambda: "",
    "one word": lambda: "token",
    "only dots": lambda: "..",
    "alg none": lambda: unsigned("none"),
    "alg None": lambda: unsigned("None"),
    "alg NONE": lambda: unsigned("NONE"),
    "alg nOnE": lambda: unsigned("nOnE"),
    "alg none with some signature": lambda: token({"alg": "none", "kid": "ec-1"}),
    "alg empty": lambda: headed(alg=""),
    "alg null": lambda: headed(alg=None),
    "alg a list": lambda: headed(alg=["ES256"]),
    "alg missing": lambda: token({"kid": "ec-1"}),
    "alg in lower case": lambda: headed(alg="es256"),
    "HMAC with the public key as PEM": lambda: hs256(PEM),
    "HMAC with the public key as PEM and its kid": lambda: hs256(PEM, {"kid": "ec-1"}),
    "HMAC with the public key as DER": lambda: hs256(DER),
    "HMAC with the raw EC point": lambda: hs256(POINT),
    "HMAC with the raw EC point and its kid": lambda: hs256(POINT, {"kid": "ec-1"}),
    "HMAC with the JWK": lambda: hs256(json.dumps(published(EC_KEY, "ec-1"))),
    "HMAC with an empty secret": lambda: hs256(b""),
    "HMAC with the kid of a published key": lambda: hs256(SECRET, {"kid": "ec-1"}),
    "HMAC with a kid that is a number": lambda: hs256(SECRET, {"kid": 1}),
    "legacy anon key": lambda: hs256(SECRET, iss="supabase", role="anon", sub=None, aud=None),
    "legacy service_role key": lambda: hs256(
        SECRET, iss="supabase", role="service_role", sub=None, aud=None
    ),
    "HS512": lambda: token({"alg": "HS512"}),
    "another's key under our kid": from_stranger,
    "another's key in jwk": lambda: from_stranger(jwk=STRANGERS_JWK),
    "another's key behind jku": lambda: from_stranger(jku="https://evil.example/jwks.json"),
    "another's key behind x5u": lambda: from_stranger(x5u="https://evil.example/cert.pem"),
    "another's key in x5c": lambda: from_stranger(x5c=[base64.b64encode(DER).decode()]),
    "kid unknown": lambda: headed(kid="ec-2"),
    "kid missing": lambda: token({"alg": "ES256"}),
    "kid empty": lambda: headed(kid=""),
    "kid null": lambda: headed(kid=None),
    "kid a path": lambda: headed(kid="../../../../dev/null"),
    "kid some SQL": lambda: headed(kid="ec-1' UNION SELECT 'key'--"),
    "kid an address": lambda: headed(kid="https://evil.example/key"),
    "kid a number": lambda: headed(kid=1),
    "kid a list": lambda: headed(kid=["ec-1"]),
    "RS256 with the kid of an EC key": lambda: token({"alg": "RS256", "kid": "ec-1"}, sign=rs256),
    "ES256 with the kid of an RSA key": lambda: token({"alg": "ES256", "kid": "rsa-1"}),
    "PS256": lambda: token({"alg": "PS256", "kid": "rsa-1"}, sign=pss),
    "RS512": lambda: jwt.encode(CLAIMS, RSA_KEY, "RS512", headers={"kid": "rsa-1"}),
    "ES384": lambda: jwt.encode(
        CLAIMS, ec.generate_private_key(ec.SECP384R1()), "ES384", headers={"kid": "ec-1"}
    ),
    "EdDSA": lambda: jwt.encode(CLAIMS, ED_KEY, "EdDSA", headers={"kid": "ec-1"}),
    "crit with something unknown": lambda: headed(crit=["exp"], exp=NOW),
    "crit with b64": lambda: headed(crit=["b64"], b64=True),
    "payload said to be detached": lambda: headed(crit=["b64"], b64=False),
    "issuer another project": lambda: saying(iss="https://other.supabase.co/auth/v1"),
    "issuer with a slash more": lambda: saying(iss=ISSUER + "/"),
    "issuer a list": lambda: saying(iss=[ISSUER]),
    "issuer missing": lambda: saying(iss=None),
    "audience anon": lambda: saying(aud="anon"),
    "audience of several": lambda: saying(aud=["authenticated", "anon"]),
    "audience an empty list": lambda: saying(aud=[]),
    "audience missing": lambda: saying(aud=None),
    "role anon": lambda: saying(role="anon"),
    "role service_role": lambda: saying(role="service_role"),
    "role missing": lambda: saying(role=None),
    "expired an hour ago": lambda: saying(iat=NOW - 7200, exp=NOW - 3600),
    "expired just beyond the leeway": lambda: saying(exp=NOW - 30),
    "expiry missing": lambda: saying(exp=None),
    "expiry a string": lambda: saying(exp=str(NOW + 3600)),
    "expiry true": lambda: saying(exp=True),
    "expiry null": lambda: with_raw("exp", "null"),
    "expiry NaN": lambda: with_raw("exp", "NaN"),
    "expiry infinite": lambda: with_raw("exp", "Infinity"),
    "expiry beyond all numbers": lambda: with_raw("exp", "1e999"),
    "issued in the future": lambda: saying(iat=NOW + 600),
    "time of issue missing": lambda: saying(iat=None),
    "time of issue a string": lambda: saying(iat="now"),
    "not yet valid": lambda: saying(nbf=NOW + 600),
    "not before a string": lambda: saying(nbf="soon"),
    "subject missing": lambda: saying(sub=None),
    "subject empty": lambda: saying(sub=""),
    "subject a name": lambda: saying(sub="ada"),
    "subject a number": lambda: saying(sub=7),
    "session not a UUID": lambda: saying(session_id="session"),
    "claims a list": lambda: token(claims=[CLAIMS]),
    "claims not JSON": lambda: raw_json("sub=ada"),
    "claims of a thousand brackets": lambda: raw_json("[" * 3000),
    "claims not UTF-8": lambda: token(claims=b"\xff\xfe"),
    "header of a thousand brackets": lambda: token(header=b"[" * 3000),
    "header not JSON": lambda: token(header=b"ES256"),
    "header a list": lambda: token(header=["ES256"]),
    "longer than 8 kB": lambda: saying(user_metadata={"text": "a" * MAX_TOKEN}),
    "a megabyte": lambda: "a" * 1_000_000,
    "cut in half": lambda: good()[: len(good()) // 2],
    "last character missing": lambda: good()[:-1],
    "signature stripped": lambda: good().rsplit(".", 1)[0] + ".",
    "signature missing": lambda: good().rsplit(".", 1)[0],
    "signature changed": flipped,
    "signature as DER": lambda: token(sign=der),
    "signature of zeros": lambda: token(sign=lambda _: bytes(64)),
    "claims changed after signing": tampered,
    "a fourth segment": lambda: good() + ".e30",
    "five segments, as if encrypted": lambda: good() + ".e30.e30",
    "padded": lambda: good() + "==",
    "a line break after it": lambda: good() + "\n",
    "a space before it": lambda: " " + good(),
    "Bearer still before it": lambda: "Bearer " + good(),
    "NUL inside": lambda: good().replace(".", ".\0", 1),
    "letters that look like ASCII": lambda: good().replace("e", "е"),  # noqa: RUF001
    "a lone surrogate": lambda: good() + "\ud800",
    "digits of another script": lambda: good() + "٣",
}


@pytest.fixture
def key_server():
    return KeyServer()


@pytest.fixture
def clock():
    """Monotonic, for the key source."""
    return Clock()


@pytest.fixture
async def keys(key_server, clock):
    async with httpx.AsyncClient(transport=httpx.MockTransport(key_server)) as http:
        source = RemoteKeys(KEYS_URL, http, clock)
        yield source
        source.close()


@pytest.fixture
def wall_clock():
    return Clock(NOW)


@pytest.fixture
def verifier(keys, wall_clock):
    return TokenVerifier(ISSUER, keys, clock=wall_clock)


@pytest.fixture
def legacy_verifier(keys, wall_clock):
    return TokenVerifier(ISSUER, keys, SECRET, clock=wall_clock)


@pytest.fixture
def settle():
    """Let everything that can run now run."""

    async def _settle():
        for _ in range(50):
            await asyncio.sleep(0)

    return _settle


@pytest.mark.parametrize("forge", REFUSED.values(), ids=REFUSED.keys())
async def test_a_forged_or_wrong_token_is_refused(verifier, legacy_verifier, forge):
    await verifier.verify(good())
    await legacy_verifier.verify(good())

    for door in (verifier, legacy_verifier):
        with pytest.raises(Unauthorized):
            await door.verify(forge())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(good(), id="ES256"),
        pytest.param(token({"alg": "RS256", "kid": "rsa-1"}, sign=rs256), id="RS256"),
        pytest.param(saying(aud=["authenticated"]), id="audience a list of one"),
        pytest.param(saying(exp=NOW - 29), id="expired within the leeway"),
        pytest.param(saying(iat=NOW + 29, nbf=NOW + 29), id="issued by a clock that is ahead"),
        pytest.param(saying(exp=NOW + 0.5), id="expiry with a fraction"),
        pytest.param(
            saying(is_anonymous=True, amr=[{"method": "password"}]), id="claims we do not use"
        ),
        pytest.param(headed(jku="https://evil.example/keys"), id="jku ignored"),
    ],
)
async def test_a_good_token_names_its_user(verifier, text):
    assert await verifier.verify(text) == User(USER_ID, SESSION_ID, "ada@example.com")


async def test_who_signed_in_may_read_write_and_chat(verifier):
    assert (await verifier.verify(good())).scopes == {"read", "write", "chat"}


async def test_the_longest_token_is_believed_and_a_longer_one_is_not(verifier):
    by_length = {len(text): text for text in (padded(n) for n in range(5_600, 5_900))}
    longest = max(length for length in by_length if length <= MAX_TOKEN)
    assert longest == MAX_TOKEN

    assert (await verifier.verify(by_length[longest])).id == USER_ID
    with pytest.raises(Unauthorized):
        await verifier.verify(by_length[min(set(by_length) - set(range(MAX_TOKEN + 1)))])


async def test_whose_account_is_erased_must_prove_itself_anew_and_nobody_else(verifier):
    hers, anothers = good(), saying(sub=str(uuid4()))
    await verifier.verify(hers)
    await verifier.verify(anothers)

    verifier.forget(USER_ID)

    assert verifier.remembered(hers) is None
    assert verifier.remembered(anothers) is not None


async def test_a_user_may_have_no_session_and_no_address(verifier):
    text = saying(session_id=None, email="")

    assert await verifier.verify(text) == User(USER_ID, None, None)


async def test_a_legacy_token_is_good_only_where_its_secret_is_configured(
    verifier, legacy_verifier
):
    for text in (hs256(SECRET), hs256(SECRET, {"kid": "legacy-hs256"})):
        assert (await legacy_verifier.verify(text)).id == USER_ID
        with pytest.raises(Unauthorized):
            await verifier.verify(text)


async def test_a_legacy_token_needs_no_key_server(legacy_verifier, key_server):
    key_server.reply = httpx.Response(500)

    assert (await legacy_verifier.verify(hs256(SECRET))).id == USER_ID
    assert key_server.requests == []


@pytest.mark.parametrize(
    ("amr", "proved"),
    [
        pytest.param([{"method": "password", "timestamp": 5}], 5, id="by a password"),
        pytest.param(
            [{"method": "totp", "timestamp": 9.5}, {"method": "password", "timestamp": 5}],
            9.5,
            id="by two proofs, the last of them",
        ),
        pytest.param(
            [{"method": "password", "timestamp": 5}, {"method": "token_refresh", "timestamp": 9}],
            5,
            id="and refreshed, which proves nothing",
        ),
        pytest.param([{"method": "anonymous", "timestamp": 5}], None, id="as nobody"),
        pytest.param([{"method": "password", "timestamp": True}], None, id="at no time"),
        pytest.param(
            [{"method": "password"}, "password", None], None, id="in forms we do not know"
        ),
        pytest.param({"timestamp": 5}, None, id="in no list"),
        pytest.param(None, None, id="in no way that is told"),
    ],
)
async def test_a_token_says_when_its_user_was_last_proved_to_be_it(verifier, amr, proved):
    assert (await verifier.verify(saying(amr=amr))).signed_in_at == proved


@pytest.mark.parametrize(
    ("seconds_ago", "is_now"), [(0, True), (JUST_NOW - 5, True), (JUST_NOW + 5, False)]
)
def test_just_now_is_ten_minutes_and_never_where_nothing_is_known(seconds_ago, is_now):
    user = User(USER_ID, SESSION_ID, None, signed_in_at=time.time() - seconds_ago)

    assert signed_in_just_now(user) is is_now
    assert not signed_in_just_now(User(USER_ID, SESSION_ID, None))


def test_a_short_legacy_secret_stops_the_start(keys):
    with pytest.raises(SettingsError, match="shorter than 32 bytes"):
        TokenVerifier(ISSUER, keys, "s" * 31)
    TokenVerifier(ISSUER, keys, "s" * 32)


async def test_a_token_seen_before_still_expires(verifier, wall_clock):
    text = saying(exp=NOW + 60)
    await verifier.verify(text)
    wall_clock.now += 60 + 30

    with pytest.raises(Unauthorized):
        await verifier.verify(text)


async def test_a_token_seen_before_is_not_looked_up_again(verifier, key_server, clock):
    text = good()
    await verifier.verify(text)
    key_server.reply = httpx.Response(500)
    clock.now += STALE_FOR

    assert (await verifier.verify(text)).id == USER_ID


async def test_a_key_that_was_withdrawn_takes_its_tokens_along(verifier, key_server, clock, settle):
    text = good()
    await verifier.verify(text)
    key_server.keys = [published(RSA_KEY, "rsa-1")]
    clock.now += REFRESH_AFTER
    await verifier.verify(text)
    await settle()

    with pytest.raises(Unauthorized):
        await verifier.verify(text)


async def test_a_new_key_is_found_without_a_restart(verifier, key_server, clock):
    await verifier.verify(good())
    key_server.keys.append(published(STRANGERS_KEY, "ec-2"))
    clock.now += COOLDOWN

    assert (await verifier.verify(from_stranger(kid="ec-2"))).id == USER_ID


async def test_ten_thousand_unknown_key_ids_cost_the_provider_one_request(
    verifier, key_server, clock
):
    await verifier.verify(good())
    clock.now += COOLDOWN

    tried = [verifier.verify(headed(kid=f"unknown-{n}")) for n in range(100)]
    refused = await asyncio.gather(*tried, return_exceptions=True)
    for n in range(9_900):
        with pytest.raises(Unauthorized):
            await verifier.verify(f"{encoded({'alg': 'ES256', 'kid': str(n)})}.e30.e30")

    assert {type(error) for error in refused} == {Unauthorized}
    assert len(key_server.requests) == 2


async def test_a_hundred_first_requests_share_one_fetch(verifier, key_server):
    users = await asyncio.gather(*(verifier.verify(saying(jti=str(n))) for n in range(100)))

    assert {user.id for user in users} == {USER_ID}
    assert len(key_server.requests) == 1


async def test_a_caller_who_goes_away_does_not_stop_the_fetch(verifier, key_server, settle):
    key_server.open.clear()
    impatient = asyncio.create_task(verifier.verify(good()))
    patient = asyncio.create_task(verifier.verify(saying(jti="other")))
    await settle()
    impatient.cancel()
    key_server.open.set()

    assert (await patient).id == USER_ID
    assert len(key_server.requests) == 1


async def test_keys_are_renewed_behind_the_requests(verifier, key_server, clock, settle):
    await verifier.verify(good())
    clock.now += REFRESH_AFTER
    key_server.open.clear()

    await verifier.verify(saying(jti="not waiting"))
    await settle()
    key_server.open.set()
    await settle()

    assert len(key_server.requests) == 2


async def test_old_keys_are_not_trusted_without_asking(verifier, key_server, clock):
    await verifier.verify(good())
    key_server.keys = [published(RSA_KEY, "rsa-1")]
    clock.now += FRESH_FOR

    with pytest.raises(Unauthorized):
        await verifier.verify(saying(jti="after a quiet night"))


BROKEN = {
    "answers 500": lambda _: httpx.Response(500),
    "answers no JSON": lambda _: httpx.Response(200, text="<html>"),
    "answers a list": lambda _: httpx.Response(200, json=["keys"]),
    "answers an object without keys": lambda _: httpx.Response(200, json={}),
    "answers keys that are text": lambda _: httpx.Response(200, json={"keys": ["key"]}),
    "answers a broken key": lambda _: httpx.Response(
        200, json={"keys": [{**published(EC_KEY, "ec-1"), "x": "AAAA"}]}
    ),
    "answers brackets": lambda _: httpx.Response(200, content=b"[" * 20_000),
    "refuses the connection": lambda _: _raise(httpx.ConnectError("refused")),
    "is too slow": lambda _: _raise(httpx.ReadTimeout("slow")),
    "redirects": lambda request: (
        httpx.Response(302, headers={"location": "https://evil.example/jwks.json"})
        if request.url == KEYS_URL
        else httpx.Response(200, json={"keys": [STRANGERS_JWK, published(EC_KEY, "ec-1")]})
    ),
    "answers too much": lambda _: httpx.Response(
        200, json={"keys": [published(EC_KEY, "ec-1", padding="a" * MAX_BYTES)]}
    ),
}


def _raise(error):
    raise error


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN.keys())
async def test_users_stay_signed_in_while_the_key_server(verifier, key_server, clock, reply):
    await verifier.verify(good())
    key_server.reply = reply

    for hours in (1, 12, 23):
        clock.now = hours * 3600
        assert (await verifier.verify(saying(jti=str(hours)))).id == USER_ID
    assert set(key_server.requests) == {KEYS_URL}
    assert len(key_server.requests) > 1

    clock.now = STALE_FOR + 1
    with pytest.raises(Unavailable):
        await verifier.verify(saying(jti="the next day"))


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN.keys())
async def test_nobody_is_told_that_a_token_is_bad_when_the_key_server_at_start(
    verifier, key_server, clock, reply
):
    key_server.reply = reply
    with pytest.raises(Unavailable):
        await verifier.verify(good())

    key_server.reply = None
    clock.now += 1
    assert (await verifier.verify(good())).id == USER_ID


async def test_a_key_server_that_never_answers_is_given_up(verifier, key_server):
    key_server.open.clear()

    with pytest.raises(Unavailable):
        await verifier.verify(good())


async def test_a_body_without_end_is_not_read_to_its_end(verifier, key_server):
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 1024
            yield b"a" * 1024

    key_server.reply = lambda _: httpx.Response(200, content=endless())

    with pytest.raises(Unavailable):
        await verifier.verify(good())
    assert sent <= MAX_BYTES + 1024


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(
            {"kty": "oct", "kid": "ec-1", "alg": "HS256", "k": encoded(b"k" * 32)}, id="symmetric"
        ),
        pytest.param(
            {"kty": "oct", "kid": "ec-1", "k": encoded(b"k" * 32)},
            id="for no algorithm that is named",
        ),
        pytest.param(
            {"kty": "OKP", "crv": "Ed25519", "kid": "ec-1", "x": encoded(b"x" * 32)},
            id="of a kind we do not know",
        ),
        pytest.param(published(EC_KEY, "ec-1", crv="P-384"), id="on another curve"),
        pytest.param(published(EC_KEY, "ec-1", use="enc"), id="for encryption"),
        pytest.param(published(EC_KEY, "ec-1", alg="ES384"), id="for another algorithm"),
        pytest.param(published(EC_KEY, None), id="without an id"),
        pytest.param(published(EC_KEY, 7), id="with a number for an id"),
        pytest.param({**ECAlgorithm.to_jwk(EC_KEY, as_dict=True), "kid": "ec-1"}, id="private"),
    ],
)
async def test_a_published_key_that_is_of_no_use_is_passed_over(verifier, key_server, key):
    key_server.keys = [key, published(RSA_KEY, "rsa-1")]

    assert await verifier.verify(token({"alg": "RS256", "kid": "rsa-1"}, sign=rs256))
    with pytest.raises(Unauthorized):
        await verifier.verify(good())
    with pytest.raises(Unauthorized):
        await verifier.verify(hs256(b"k" * 32, {"kid": "ec-1"}))


async def test_an_rsa_key_that_can_be_broken_is_passed_over(verifier, key_server):
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    key_server.keys.append(published(weak, "weak"))
    sign = lambda message: weak.sign(message, padding.PKCS1v15(), SHA256())  # noqa: E731

    assert await verifier.verify(good())
    with pytest.raises(Unauthorized):
        await verifier.verify(token({"alg": "RS256", "kid": "weak"}, sign=sign))


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://project.supabase.co/keys", True),
        ("http://127.0.0.1:54321/keys", True),
        ("http://localhost:54321/keys", True),
        ("http://project.supabase.co/keys", False),
        ("http://127.0.0.1.evil.example/keys", False),
        ("http://localhost@evil.example/keys", False),
        ("file:///etc/passwd", False),
    ],
)
async def test_keys_come_over_https_or_from_this_machine(url, allowed):
    server = KeyServer()
    async with httpx.AsyncClient(transport=httpx.MockTransport(server)) as http:
        if allowed:
            assert await RemoteKeys(url, http).find("ES256", "ec-1")
            assert server.requests == [url]
        else:
            with pytest.raises(SettingsError):
                RemoteKeys(url, http)


async def test_a_key_set_is_asked_for_unpacked(verifier, key_server):
    """A small body that unpacks to gigabytes would be one of the ways to stop us."""
    asked = []
    key_server.reply = lambda request: (
        asked.append(request.headers) or httpx.Response(200, json={"keys": key_server.keys})
    )

    await verifier.verify(good())

    [headers] = asked
    assert (headers["accept"], headers["accept-encoding"]) == ("application/json", "identity")


async def test_ten_thousand_tokens_are_remembered_and_the_oldest_is_forgotten_first(
    legacy_verifier, key_server, clock
):
    oldest, kept = good(), saying(jti="kept")
    await legacy_verifier.verify(oldest)
    await legacy_verifier.verify(kept)
    for n in range(CACHE_SIZE - 1):
        await legacy_verifier.verify(hs256(SECRET, jti=str(n)))
    key_server.reply = httpx.Response(500)
    clock.now += STALE_FOR

    assert (await legacy_verifier.verify(kept)).id == USER_ID
    with pytest.raises(Unavailable):
        await legacy_verifier.verify(oldest)
