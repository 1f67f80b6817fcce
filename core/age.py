"""A stream under a passphrase, as age-encryption.org/v1 has it: any `age` opens it."""

import base64
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

INTRO = b"age-encryption.org/v1\n"
CHUNK = 64 * 1024
TAG = 16
# 64 MiB and a fifth of a second for each guess, and for each export.
WORK_FACTOR = 16
MOST_WORK_FACTOR = 20


class CannotDecrypt(ValueError):
    """The text is for the person at the command line."""


def key_for(passphrase: str, salt: bytes, work_factor: int) -> bytes:
    """Derive the key that wraps the file's; slow and large on purpose."""
    label = b"age-encryption.org/v1/scrypt"
    return Scrypt(label + salt, 32, 2**work_factor, 8, 1).derive(passphrase.encode())


def header(passphrase: str) -> tuple[bytes, bytes]:
    """Return what the stream begins with, and the key of the file."""
    file_key, salt = os.urandom(16), os.urandom(16)
    wrapped = ChaCha20Poly1305(key_for(passphrase, salt, WORK_FACTOR)).encrypt(
        bytes(12), file_key, None
    )
    stanza = b"-> scrypt %s %d\n%s\n---" % (_base64(salt), WORK_FACTOR, _base64(wrapped))
    return INTRO + stanza + b" " + _base64(_mac(file_key, INTRO + stanza)) + b"\n", file_key


async def encrypted(
    beginning: tuple[bytes, bytes], plain: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    head, file_key = beginning
    nonce = os.urandom(16)
    yield head + nonce
    cipher, counter, waiting = _cipher(file_key, nonce), 0, bytearray()
    async for part in plain:
        waiting += part
        # The last chunk is sealed otherwise than the rest, so one is always kept back.
        while len(waiting) > CHUNK:
            yield cipher.encrypt(_nonce(counter, last=False), bytes(waiting[:CHUNK]), None)
            del waiting[:CHUNK]
            counter += 1
    yield cipher.encrypt(_nonce(counter, last=True), bytes(waiting), None)


def decrypted(file: BinaryIO, passphrase: str) -> Iterator[bytes]:
    """Yield what is in the file. Raises CannotDecrypt; what came before it is genuine."""
    file_key = _file_key(file, passphrase)
    cipher, counter = _cipher(file_key, file.read(16)), 0
    chunk = file.read(CHUNK + TAG)
    while chunk:
        following = file.read(CHUNK + TAG)
        try:
            yield cipher.decrypt(_nonce(counter, last=not following), chunk, None)
        except InvalidTag as error:
            raise CannotDecrypt("The file is damaged or cut.") from error
        chunk, counter = following, counter + 1
    if not counter:
        raise CannotDecrypt("The file is damaged or cut.")


def _file_key(file: BinaryIO, passphrase: str) -> bytes:
    intro, stanza, body, end = (file.readline(200) for _ in range(4))
    kind = stanza.split()
    try:
        if intro != INTRO or kind[:2] != [b"->", b"scrypt"] or not end.startswith(b"--- "):
            raise ValueError
        salt, work, wrapped = _plain(kind[2]), int(kind[3]), _plain(body.strip())
        mac = _plain(end[4:].strip())
        if not 1 <= work <= MOST_WORK_FACTOR:
            raise ValueError
    except (ValueError, IndexError) as error:
        raise CannotDecrypt("This is no file that was encrypted with a passphrase.") from error
    try:
        key = ChaCha20Poly1305(key_for(passphrase, salt, work)).decrypt(bytes(12), wrapped, None)
    except InvalidTag as error:
        raise CannotDecrypt("The passphrase is wrong.") from error
    if not hmac.compare_digest(mac, _mac(key, intro + stanza + body + b"---")):
        raise CannotDecrypt("The file is damaged or cut.")
    return key


def _cipher(file_key: bytes, nonce: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(HKDF(SHA256(), 32, nonce, b"payload").derive(file_key))


def _mac(file_key: bytes, text: bytes) -> bytes:
    key = HKDF(SHA256(), 32, b"", b"header").derive(file_key)
    return hmac.digest(key, text, hashlib.sha256)


def _nonce(counter: int, *, last: bool) -> bytes:
    return counter.to_bytes(11, "big") + bytes([last])


def _base64(raw: bytes) -> bytes:
    return base64.b64encode(raw).rstrip(b"=")


def _plain(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
