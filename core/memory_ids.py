"""The id of a memory that a site named first: the same from live capture and from an import."""

from uuid import UUID, uuid5


def memory_id(user_id: UUID, provider: str, message_id: str) -> UUID:
    """Derive it as the extension does (`extension/src/ids.ts`); `message_id` as the site spells it.

    A prompt and its first answer go by the id of the prompt's message, each further answer to the
    same prompt by the id of its own message.
    """
    return uuid5(user_id, f"{provider}:{well_formed(message_id)}")


def well_formed(text: str) -> str:
    """Put U+FFFD for what the service cannot keep: NUL, and halves of surrogate pairs."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\0", "\ufffd")
