"""The operator's keys: made here, shown once, known afterwards by their hash alone."""

import hashlib
import secrets


def make_key() -> str:
    """256 random bits behind a prefix by which people and secret scanners know what it is."""
    return f"mla_{secrets.token_urlsafe(32)}"


def hash_of(key: str) -> bytes:
    """SHA-256 without salt or stretching: a key is too long to be guessed from it."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
