"""The error catalogue: everything a caller can be told, each with a code that never changes."""

from collections.abc import Mapping


class AppError(Exception):
    """Base of all errors that leave the service; `message` is one readable sentence."""

    status = 500
    code = "INTERNAL_ERROR"
    message = "Something went wrong on our side."
    retry_after: int | None = None
    headers: Mapping[str, str] = {}

    def __init__(self, message: str | None = None, **details: object) -> None:
        self.message = message or self.message
        self.details = details
        super().__init__(self.message)


class InvalidInput(AppError):
    status, code, message = 400, "INVALID_INPUT", "The request is not valid."


class Unauthorized(AppError):
    status, code, message = 401, "UNAUTHORIZED", "The access token is missing, expired or not ours."


class AccountErased(Unauthorized):
    message = "This account was erased."


class SignInAgain(AppError):
    status, code = 403, "SIGN_IN_AGAIN"
    message = "Sign in again, or send your password: this cannot be undone."


class Forbidden(AppError):
    status, code, message = 403, "FORBIDDEN", "That belongs to somebody else."


class MissingScope(AppError):
    status, code, message = 403, "MISSING_SCOPE", "This token was not given the scope for that."


class SignInRequired(AppError):
    status, code = 403, "SIGN_IN_REQUIRED"
    message = "A personal token may not do this: sign in, and use your access token."


class NotFound(AppError):
    status, code, message = 404, "NOT_FOUND", "There is nothing at this address."


class MethodNotAllowed(AppError):
    status, code, message = 405, "METHOD_NOT_ALLOWED", "This address does not take that method."


class Conflict(AppError):
    status, code, message = 409, "CONFLICT", "This id already holds another content."


class ResyncRequired(AppError):
    status, code = 410, "RESYNC_REQUIRED"
    message = "The cursor leads past changes that are gone; begin anew, without a cursor."


class ChangedMeanwhile(AppError):
    status, code = 412, "CHANGED_MEANWHILE"
    message = "The memory is no longer as you read it; `details.memory` is how it stands."


class TooManyTokens(AppError):
    status, code, message = 409, "TOO_MANY_TOKENS", "You have as many tokens as a person may have."


class TooLarge(AppError):
    status, code, message = 413, "TOO_LARGE", "The request is larger than this server accepts."


class UnsupportedEncoding(AppError):
    status, code = 415, "UNSUPPORTED_ENCODING"
    message = "Send the body uncompressed, as application/json."


class WrongHost(AppError):
    status, code, message = 421, "WRONG_HOST", "Not a name of this server: see ALLOWED_HOSTS."


class Unavailable(AppError):
    status, code, message = 503, "UNAVAILABLE", "The service cannot do this now; try again shortly."
    retry_after = 2


class NoChatProvider(AppError):
    status, code = 503, "NO_CHAT_PROVIDER"
    message = "This server has no key for a model provider; send one of yours as X-Provider-Key."


class ProviderFailed(AppError):
    """`told` is the provider's own refusal, which protocols of its kind pass on as it is.

    `passing`: another try may succeed.
    """

    status, code, message = 502, "PROVIDER_FAILED", "The model provider failed."

    def __init__(
        self,
        message: str | None = None,
        *,
        told: tuple[int, bytes] | None = None,
        passing: bool = False,
        **details: object,
    ) -> None:
        super().__init__(message, **details)
        self.told = told
        self.passing = passing


class ProviderTooSlow(ProviderFailed):
    status, code, message = 504, "PROVIDER_TOO_SLOW", "The model provider did not answer in time."


class TooSlow(AppError):
    status, code, message = 408, "TOO_SLOW", "The request's body did not arrive in time."


class RateLimitExceeded(AppError):
    status, code = 403, "RATE_LIMIT_EXCEEDED"
    message = "Today's requests are spent; the day ends at midnight UTC."


class TokensSpent(AppError):
    status, code = 403, "TOKENS_SPENT"
    message = "Today's tokens of this server's model providers are spent; use a key of your own."


class TooManyRequests(AppError):
    status, code, message = (
        429,
        "TOO_MANY_REQUESTS",
        "Too many requests in a minute; wait.",
    )
