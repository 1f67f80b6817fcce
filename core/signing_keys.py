"""The keys that the local sign-in service signs its access tokens with."""

import hashlib
import json

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from core.jwks import PublicKey
from storage import accounts
from storage.database import Pool

ALGORITHM = "ES256"


class LocalKeys:
    """Private keys in memory; the first signs, all verify."""

    def __init__(self, private_keys: list[ec.EllipticCurvePrivateKey]) -> None:
        self._signing_key = private_keys[0]
        self._public_keys = {thumbprint(key.public_key()): key.public_key() for key in private_keys}
        self._kid = next(iter(self._public_keys))

    @property
    def generation(self) -> int:
        return 0

    def knows(self, kid: str | None) -> bool:
        return kid in self._public_keys

    def refresh_soon(self) -> None:
        """Nothing to fetch."""

    async def find(self, algorithm: str, kid: str) -> PublicKey | None:
        return self._public_keys.get(kid) if algorithm == ALGORITHM else None

    def sign(self, claims: dict[str, object]) -> str:
        return jwt.encode(claims, self._signing_key, ALGORITHM, headers={"kid": self._kid})

    def published(self) -> dict[str, object]:
        """The JSON Web Key Set, public halves only."""
        about = {"alg": ALGORITHM, "use": "sig", "key_ops": ["verify"]}
        return {
            "keys": [{**_jwk(key), **about, "kid": kid} for kid, key in self._public_keys.items()]
        }


async def load_or_create_keys(pool: Pool) -> LocalKeys:
    """Return the keys in the database; of replicas that start together, one makes the first."""
    async with accounts.acting_as_auth(pool) as conn:
        pems = await accounts.signing_keys(conn)
        if not pems:
            key = ec.generate_private_key(ec.SECP256R1())
            pems = [_pem(key)]
            await accounts.add_signing_key(conn, thumbprint(key.public_key()), pems[0])
    return LocalKeys([_private_key(pem) for pem in pems])


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """RFC 7638: the hash of the required members, in order, without spaces."""
    members = {name: _jwk(key)[name] for name in ("crv", "kty", "x", "y")}
    text = json.dumps(members, separators=(",", ":"))
    return jwt.utils.base64url_encode(hashlib.sha256(text.encode()).digest()).decode()


def _jwk(key: ec.EllipticCurvePublicKey) -> dict[str, object]:
    return dict(ECAlgorithm.to_jwk(key, as_dict=True))


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _private_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("memory_layer_auth.signing_keys holds a key that is not on a curve")
    return key
