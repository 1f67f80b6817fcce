"""Refresh tokens: a session, a counter and a signature; none of them is ever stored."""

import base64
import hashlib
import hmac
import re
import struct
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

VERSION = 1
BODY = struct.Struct(">B16sQ")  # version, session, counter
SIGNATURE = 16  # bytes of HMAC-SHA-256; 128 bits cannot be guessed
FORM = re.compile(r"[\w-]{55}", re.ASCII)  # what 41 bytes are in base64url
# Tabs of one browser share a token and may use it at the same time.
REUSE_WINDOW = 10  # seconds


class Verdict(Enum):
    ADVANCE = "the current token: spend it"
    REPEAT = "its reply was lost, or another tab was faster: the current token once more"
    FOREIGN = "not issued here"
    STOLEN = "spent long ago: somebody has a copy"


@dataclass(frozen=True, slots=True)
class RefreshToken:
    session_id: UUID
    counter: int
    signature: bytes


def issue(session_id: UUID, counter: int, key: bytes) -> str:
    body = BODY.pack(VERSION, session_id.bytes, counter)
    return base64.urlsafe_b64encode(body + _sign(body, key)).decode().rstrip("=")


def parse(text: str) -> RefreshToken | None:
    """Return what the token claims, not yet believed."""
    if not FORM.fullmatch(text):
        return None
    content = base64.urlsafe_b64decode(text + "=")
    version, session_id, counter = BODY.unpack_from(content)
    if version != VERSION:
        return None
    return RefreshToken(UUID(bytes=session_id), counter, content[BODY.size :])


def is_genuine(token: RefreshToken, key: bytes) -> bool:
    body = BODY.pack(VERSION, token.session_id.bytes, token.counter)
    return hmac.compare_digest(token.signature, _sign(body, key))


def judge(counter: int, token: RefreshToken, seconds_since_refresh: float) -> Verdict:
    """Compare a genuine token with its session's counter."""
    behind = counter - token.counter
    if behind < 0:
        return Verdict.FOREIGN
    if behind == 0:
        return Verdict.ADVANCE
    if behind == 1 or seconds_since_refresh < REUSE_WINDOW:
        return Verdict.REPEAT
    return Verdict.STOLEN


def _sign(body: bytes, key: bytes) -> bytes:
    return hmac.digest(key, body, hashlib.sha256)[:SIGNATURE]
