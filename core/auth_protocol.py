"""What Supabase Auth's protocol looks like on the wire: its objects and its errors."""

from datetime import datetime
from uuid import UUID, uuid5

from storage.accounts import Account

AUDIENCE = "authenticated"
APP_METADATA = {"provider": "email", "providers": ["email"]}


class AuthError(Exception):
    """A refusal in Supabase Auth's terms; `code` is what its clients switch on."""

    def __init__(self, status: int, code: str, message: str, **extra: object) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.extra = extra
        self.retry_after: int | None = None

    def body(self, dated: bool) -> dict[str, object]:
        """The shape of API version 2024-01-01, or the one before, which had no version."""
        if dated:
            return {"code": self.code, "message": self.message, **self.extra}
        return {
            "code": self.status,
            "error_code": self.code,
            "msg": self.message,
            **self.extra,
        }


def user_object(account: Account) -> dict[str, object]:
    created_at, signed_in_at = _time(account.created_at), _time(account.last_sign_in_at)
    user_id = str(account.id)
    identity = {
        # Supabase keeps identities in a table of their own; here each user has the one.
        "identity_id": str(uuid5(account.id, "email")),
        "id": user_id,
        "user_id": user_id,
        "identity_data": {"sub": user_id, "email": account.email, "email_verified": False},
        "provider": "email",
        "email": account.email,
        "created_at": created_at,
        "updated_at": _time(account.updated_at),
        "last_sign_in_at": signed_in_at,
    }
    return {
        "id": user_id,
        "aud": AUDIENCE,
        "role": AUDIENCE,
        "email": account.email,
        "phone": "",
        # Nobody sends mail here: an address counts as confirmed when it is given.
        "email_confirmed_at": created_at,
        "confirmed_at": created_at,
        "last_sign_in_at": signed_in_at,
        "app_metadata": APP_METADATA,
        "user_metadata": account.user_metadata,
        "identities": [identity],
        "created_at": created_at,
        "updated_at": _time(account.updated_at),
        "is_anonymous": False,
    }


def token_claims(
    account: Account, session_id: UUID, signed_in_at: datetime, user_metadata: dict[str, object]
) -> dict[str, object]:
    """The claims about the user; issuer and times are the issuer's."""
    return {
        "aud": AUDIENCE,
        "sub": str(account.id),
        "email": account.email,
        "phone": "",
        "role": AUDIENCE,
        "aal": "aal1",
        "session_id": str(session_id),
        "amr": [{"method": "password", "timestamp": int(signed_in_at.timestamp())}],
        "is_anonymous": False,
        "app_metadata": APP_METADATA,
        "user_metadata": user_metadata,
    }


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
