"""What an account may consist of."""

import json
from collections.abc import Mapping

from core import passwords
from core.auth_protocol import AuthError

MAX_EMAIL = 320  # characters
MAX_METADATA = 16 * 1024  # characters of JSON

JsonObject = dict[str, object]


def valid_email(text: str) -> str:
    email = text.lower()
    name, at, host = email.partition("@")
    if not (name and at and host) or "@" in host or " " in email or not email.isprintable():
        raise AuthError(
            400, "validation_failed", "Unable to validate email address: invalid format"
        )
    if len(email) > MAX_EMAIL:
        raise AuthError(
            400, "validation_failed", f"An email address has at most {MAX_EMAIL} characters"
        )
    return email


def valid_password(password: str | None) -> str:
    if not password:
        raise AuthError(400, "validation_failed", "Signup requires a valid password")
    if len(password) < passwords.MIN_LENGTH:
        raise AuthError(
            422,
            "weak_password",
            f"Password should be at least {passwords.MIN_LENGTH} characters.",
            weak_password={"reasons": ["length"]},
        )
    if len(password.encode()) > passwords.MAX_LENGTH:
        raise AuthError(
            400,
            "validation_failed",
            f"Password cannot be longer than {passwords.MAX_LENGTH} bytes",
        )
    return password


def merged_metadata(old: Mapping[str, object], new: Mapping[str, object] | None) -> JsonObject:
    """Lay `new` over `old`; null takes a name away."""
    merged = {name: value for name, value in {**old, **(new or {})}.items() if value is not None}
    try:
        size = len(json.dumps(merged, allow_nan=False))
    except ValueError:
        raise AuthError(400, "bad_json", "Numbers must be finite") from None
    if size > MAX_METADATA:
        raise AuthError(
            400, "validation_failed", f"User metadata has at most {MAX_METADATA} characters"
        )
    return merged
