"""Sign-in without an identity provider: what Supabase Auth decides, decided here."""

import json
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from core import refresh_tokens
from core.account_rules import JsonObject, merged_metadata, valid_email, valid_password
from core.auth import TokenVerifier, User, signed_in_just_now
from core.auth_protocol import AuthError, token_claims, user_object
from core.config import Settings
from core.errors import AccountErased, Unauthorized
from core.passwords import Passwords
from core.refresh_tokens import RefreshToken, Verdict
from core.signing_keys import LocalKeys
from storage import accounts
from storage.accounts import Account
from storage.database import Connection, Pool
from storage.ids import uuid7

# More than this is left out of tokens, or they would outgrow what a verifier accepts.
MAX_METADATA_IN_TOKEN = 3 * 1024
# Whose sessions a sign-out ends; the first where none is named.
SIGN_OUT_SCOPES = ("global", "local", "others")
MAX_IDLE = 30 * 24 * 3600  # seconds after which a session that was not refreshed has ended


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What a user wants changed; None leaves things as they are."""

    email: str | None = None
    password: str | None = None
    current_password: str | None = None
    data: JsonObject | None = None


class LocalAuth:
    """Every method returns the object to answer with, or raises AuthError.

    Trouble with the database is let through, for the caller to answer 503: a client that is told
    4xx forgets its session.
    """

    def __init__(self, pool: Pool, settings: Settings, keys: LocalKeys) -> None:
        self._pool = pool
        self._settings = settings
        self._keys = keys
        self._passwords = Passwords()
        self.verifier = TokenVerifier(settings.token_issuer, keys)

    def close(self) -> None:
        self._passwords.close()

    def published_keys(self) -> JsonObject:
        return self._keys.published()

    def described(self) -> JsonObject:
        """What clients may know before they sign in."""
        return {
            "external": {"email": True, "phone": False, "anonymous_users": False},
            "disable_signup": self._settings.auth_disable_signup,
            "mailer_autoconfirm": True,
            "phone_autoconfirm": False,
            "sms_provider": "",
            "saml_enabled": False,
        }

    async def sign_up(
        self, email: str | None, password: str | None, data: JsonObject | None
    ) -> JsonObject:
        if self._settings.auth_disable_signup:
            raise AuthError(422, "signup_disabled", "Signups not allowed for this instance")
        if not email:
            raise AuthError(422, "anonymous_provider_disabled", "Anonymous sign-ins are disabled")
        email, metadata = valid_email(email), merged_metadata({}, data)
        password_hash = await self._passwords.hash(valid_password(password))
        user_id = uuid7()
        async with accounts.acting_as_auth(self._pool) as conn:
            if not await accounts.add_account(conn, user_id, email, password_hash, metadata):
                raise AuthError(422, "user_already_exists", "User already registered")
            return await self._begin_session(conn, user_id, password_hash)

    async def sign_in(self, email: str | None, password: str | None) -> JsonObject:
        if not email or not password:
            raise AuthError(400, "validation_failed", "missing email or password")
        async with accounts.acting_as_auth(self._pool) as conn:
            found = await accounts.credentials(conn, email.lower())
        user_id, password_hash = found or (None, None)
        matches = await self._passwords.matches(password_hash, password)
        if user_id is None or password_hash is None or not matches:
            raise _wrong_credentials()
        async with accounts.acting_as_auth(self._pool) as conn:
            session = await self._begin_session(conn, user_id, password_hash)
            await accounts.end_idle_sessions(conn, user_id, MAX_IDLE)
        return session

    async def refresh(self, text: str | None) -> JsonObject:
        if not text:
            raise AuthError(400, "validation_failed", "refresh_token required")
        token = refresh_tokens.parse(text)
        if token is None:
            raise _unknown_refresh_token()
        async with accounts.acting_as_auth(self._pool) as conn:
            answer = await self._refreshed(conn, token)
        if isinstance(answer, AuthError):
            raise answer
        return answer

    async def user(self, access_token: str | None) -> JsonObject:
        user = await self._signed_in(access_token)
        async with accounts.acting_as_auth(self._pool) as conn:
            return user_object(await _account_of(conn, user))

    async def change_account(self, access_token: str | None, change: AccountChange) -> JsonObject:
        user = await self._signed_in(access_token)
        email = valid_email(change.email) if change.email else None
        password_hash = await self._new_password_hash(user, change)
        async with accounts.acting_as_auth(self._pool) as conn:
            account = await _account_of(conn, user, lock=True)
            metadata = merged_metadata(account.user_metadata, change.data)
            try:
                await accounts.change_account(
                    conn,
                    user.id,
                    email or account.email,
                    password_hash or account.password_hash,
                    metadata,
                )
            except accounts.EmailTaken:
                raise AuthError(
                    422,
                    "email_exists",
                    "A user with this email address has already been registered",
                ) from None
            if password_hash:
                # Whoever knew the old password may be the reason for the new one.
                await accounts.end_sessions(conn, user.id, keep=user.session_id)
            return user_object(await _account_of(conn, user))

    async def sign_out(self, access_token: str | None, scope: str) -> None:
        user = await self._signed_in(access_token)
        if scope not in SIGN_OUT_SCOPES:
            raise AuthError(400, "validation_failed", f"Unsupported logout scope {scope[:20]!r}")
        async with accounts.acting_as_auth(self._pool) as conn:
            await _account_of(conn, user, lock=True)
            if scope == "local" and user.session_id:
                await accounts.end_session(conn, user.id, user.session_id)
            else:
                keep = user.session_id if scope == "others" else None
                await accounts.end_sessions(conn, user.id, keep=keep)

    async def proves(self, user: User, password: str | None) -> bool:
        """Say whether it is the owner: by the password, or by a session that just began."""
        async with accounts.acting_as_auth(self._pool) as conn:
            account = await accounts.account(conn, user.id)
            session_id = user.session_id
            stands = session_id and await accounts.session_exists(conn, user.id, session_id)
        if account is None:
            raise AccountErased
        if password is not None:
            return bool(stands) and await self._passwords.matches(account.password_hash, password)
        return bool(stands) and signed_in_just_now(user)

    async def _begin_session(
        self, conn: Connection, user_id: UUID, password_hash: str
    ) -> JsonObject:
        session_id, key = uuid7(), secrets.token_bytes(32)
        account = await accounts.begin_session(conn, session_id, user_id, password_hash, key)
        if account is None:
            raise _wrong_credentials()
        refresh_token = refresh_tokens.issue(session_id, 0, key)
        return self._session_object(account, session_id, account.last_sign_in_at, refresh_token)

    async def _refreshed(self, conn: Connection, token: RefreshToken) -> JsonObject | AuthError:
        """Return errors instead of raising them: the end of a stolen session must be committed."""
        session = await accounts.lock_session(conn, token.session_id)
        if session is None or not refresh_tokens.is_genuine(token, session.refresh_key):
            return _unknown_refresh_token()
        account = await accounts.account(conn, session.user_id)
        verdict = refresh_tokens.judge(session.refresh_counter, token, session.idle)
        if account is None or verdict is Verdict.FOREIGN:
            return _unknown_refresh_token()
        if session.idle > MAX_IDLE:
            await accounts.end_session(conn, session.user_id, session.id)
            return AuthError(
                400, "session_expired", "Invalid Refresh Token: Session Expired (Inactivity)"
            )
        if verdict is Verdict.STOLEN:
            await accounts.end_session(conn, session.user_id, session.id)
            return AuthError(
                400, "refresh_token_already_used", "Invalid Refresh Token: Already Used"
            )
        counter = session.refresh_counter
        if verdict is Verdict.ADVANCE:
            await accounts.advance_session(conn, session.id)
            counter += 1
        refresh_token = refresh_tokens.issue(session.id, counter, session.refresh_key)
        return self._session_object(account, session.id, session.created_at, refresh_token)

    async def _signed_in(self, access_token: str | None) -> User:
        if not access_token:
            raise AuthError(401, "no_authorization", "This endpoint requires a valid Bearer token")
        try:
            return await self.verifier.verify(access_token)
        except Unauthorized:
            raise AuthError(403, "bad_jwt", "invalid JWT: unable to verify the token") from None

    async def _new_password_hash(self, user: User, change: AccountChange) -> str | None:
        if change.password is None:
            return None
        password = valid_password(change.password)
        async with accounts.acting_as_auth(self._pool) as conn:
            account = await _account_of(conn, user)
        current = change.current_password
        if current is not None and not await self._passwords.matches(
            account.password_hash, current
        ):
            raise _wrong_credentials()
        if await self._passwords.matches(account.password_hash, password):
            raise AuthError(
                422, "same_password", "New password should be different from the old password."
            )
        return await self._passwords.hash(password)

    def _session_object(
        self, account: Account, session_id: UUID, signed_in_at: datetime, refresh_token: str
    ) -> JsonObject:
        lifetime, now = self._settings.access_token_seconds, int(time.time())
        fits = len(json.dumps(account.user_metadata)) <= MAX_METADATA_IN_TOKEN
        metadata = account.user_metadata if fits else {}
        claims = token_claims(account, session_id, signed_in_at, metadata)
        times = {"iat": now, "exp": now + lifetime}
        return {
            "access_token": self._keys.sign(
                {"iss": self._settings.token_issuer, **claims, **times}
            ),
            "token_type": "bearer",  # nosec B105 # the name of a kind
            "expires_in": lifetime,
            "expires_at": now + lifetime,
            "refresh_token": refresh_token,
            "user": user_object(account),
        }


async def _account_of(conn: Connection, user: User, *, lock: bool = False) -> Account:
    """A token outlives its session and its user by up to its lifetime; here they must exist."""
    read = accounts.lock_account if lock else accounts.account
    account = await read(conn, user.id)
    if account is None:
        raise AuthError(403, "user_not_found", "User from sub claim in JWT does not exist")
    session_id = user.session_id
    if session_id is None or not await accounts.session_exists(conn, user.id, session_id):
        raise AuthError(
            403, "session_not_found", "Session from session_id claim in JWT does not exist"
        )
    return account


def _wrong_credentials() -> AuthError:
    """One text for a wrong password and an unknown address."""
    return AuthError(400, "invalid_credentials", "Invalid login credentials")


def _unknown_refresh_token() -> AuthError:
    return AuthError(
        400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found"
    )
