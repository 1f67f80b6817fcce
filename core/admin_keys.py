"""The operator's keys: made here, shown once, known afterwards by their hash alone."""

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

KEY_FILE = "admin-key"


def make_key() -> str:
    """256 random bits behind a prefix by which people and secret scanners know what it is."""
    return f"mla_{secrets.token_urlsafe(32)}"


def hash_of(key: str) -> bytes:
    """SHA-256 without salt or stretching: a key is too long to be guessed from it."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def key_at_home(folder: Path, report: Callable[[str], None]) -> tuple[bytes, ...]:
    """Return the hash of the key in `folder`, and make it with the first start.

    Where the folder cannot be written the server goes on without a key.
    """
    path = folder / KEY_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _make_file(path, report)
        key = path.read_text().strip()
    except OSError as error:
        report(f"No admin key: {path} cannot be kept ({error.strerror}). See ADMIN_API_KEY.")
        return ()
    return (hash_of(key),) if key else ()


def _make_file(path: Path, report: Callable[[str], None]) -> None:
    """Whole or not at all: replicas that start together must read the same key."""
    if path.exists():
        return
    draft = path.with_name(f"{KEY_FILE}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(make_key() + "\n")
        os.link(draft, path)
        report(f"The key of the admin panel is in {path}")
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
