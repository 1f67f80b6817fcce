"""`python main.py import`, `export` and `decrypt`: a past, to the server and back, from a shell."""

import argparse
import getpass
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from core import age

COMMANDS = {
    "import": "bring an assistant's export to a server",
    "export": "take everything from a server, as a zip",
    "decrypt": "open an export that was encrypted",
}
HOME = "http://127.0.0.1:8000"
CHUNK = 1024 * 1024
LOOK_EVERY_SECONDS = 0.5
ENDED = ("done", "failed", "cancelled")
WIDTH = 30


class Refused(Exception):
    """What the server, or the person, would not do; the text is for the person."""


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    parser.add_argument("file", type=Path, metavar="FILE")
    if command == "decrypt":
        parser.add_argument("--to", type=Path, metavar="FILE", help="without the ending .age")
        return
    parser.add_argument("--server", default=HOME, help="its address (%(default)s)")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--email", help="sign in at home with this address; the password is asked for")
    who.add_argument("--token", help="an access token or a personal one; else it is asked for")
    if command == "export":
        parser.add_argument("--encrypt", action="store_true", help="with a passphrase, as age does")


def run(command: str, asked: argparse.Namespace) -> int:
    """Do it and return the process's exit code: 0, or 1 with a sentence on stderr."""
    try:
        if command == "decrypt":
            _decrypt(asked.file, asked.to)
            return 0
        with httpx.Client(base_url=asked.server, timeout=httpx.Timeout(60, read=600)) as client:
            client.headers["Authorization"] = f"Bearer {_token(client, asked)}"
            return _import(client, asked.file) if command == "import" else _export(client, asked)
    except (Refused, age.CannotDecrypt) as error:
        print(error, file=sys.stderr)
    except httpx.TransportError:
        print(f"There is no server at {asked.server}: see --server.", file=sys.stderr)
    except OSError as error:
        print(f"{error.filename or asked.file}: {error.strerror}", file=sys.stderr)
    return 1


def _token(client: httpx.Client, asked: argparse.Namespace) -> str:
    if asked.email is None:
        return str(asked.token or getpass.getpass("Token: "))
    body = {"email": asked.email, "password": getpass.getpass("Password: ")}
    answer = client.post("/auth/v1/token?grant_type=password", json=body)
    if not answer.is_success:
        raise Refused("This address and password are not known there.")
    return str(answer.json()["access_token"])


def _data(answer: httpx.Response) -> dict[str, Any]:
    try:
        told = answer.json()
    except ValueError:
        raise Refused(f"This is no answer of a Memory Layer ({answer.status_code}).") from None
    if not answer.is_success:
        raise Refused(str(told.get("error", answer.status_code)))
    data: dict[str, Any] = told["data"]
    return data


def _import(client: httpx.Client, path: Path) -> int:
    size = path.stat().st_size
    answer = client.post("/import", params={"name": path.name}, content=_chunks(path, size))
    job = _data(answer)
    while job["state"] not in ENDED:
        told = f"{job['imported']} imported, {job['already_here']} here already"
        _bar("importing", job["bytes_read"], job["bytes"], told)
        time.sleep(LOOK_EVERY_SECONDS)
        job = _data(client.get(f"/import/{job['id']}"))
    _bar("importing", 1, 1, "")
    print(file=sys.stderr)
    print(
        f"{job['state']}: {job['found']} turns found = {job['imported']} imported"
        f" + {job['already_here']} here already + {job['skipped']} skipped + {job['failed']} failed"
    )
    for reason, times in sorted(job["reasons"].items()):
        print(f"  {reason}: {times}")
    if job["message"]:
        print(job["message"])
    return 0 if job["state"] == "done" else 1


def _chunks(path: Path, size: int) -> Iterator[bytes]:
    sent = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
            sent += len(chunk)
            _bar("uploading", sent, size, "")
    print(file=sys.stderr)


def _export(client: httpx.Client, asked: argparse.Namespace) -> int:
    body = {"passphrase": _new_passphrase()} if asked.encrypt else None
    method = "POST" if body else "GET"
    unfinished = asked.file.with_name(asked.file.name + ".part")
    with client.stream(method, "/export/full", json=body) as answer:
        if not answer.is_success:
            answer.read()
            _data(answer)
        try:
            with unfinished.open("xb") as file:
                unfinished.chmod(0o600)
                for part in answer.iter_raw(CHUNK):
                    file.write(part)
                    _bar("exporting", 0, 0, f"{file.tell() / 1e6:.1f} MB")
            unfinished.replace(asked.file)
        finally:
            unfinished.unlink(missing_ok=True)  # unless it is whole, and has its own name by now
    print(f"\n{asked.file}", file=sys.stderr)
    return 0


def _new_passphrase() -> str:
    passphrase = getpass.getpass("New passphrase: ")
    if passphrase != getpass.getpass("Again: "):
        raise Refused("The two are not the same.")
    return passphrase


def _decrypt(path: Path, to: Path | None) -> None:
    target = to or path.with_suffix("")
    if target == path or target.exists():
        raise Refused(f"{target} is there already: say where to with --to.")
    passphrase = getpass.getpass("Passphrase: ")
    try:
        with path.open("rb") as sealed, target.open("xb") as plain:
            target.chmod(0o600)
            for part in age.decrypted(sealed, passphrase):
                plain.write(part)
    except age.CannotDecrypt:
        target.unlink(missing_ok=True)
        raise
    print(target, file=sys.stderr)


def _bar(doing: str, done: int, of: int, told: str) -> None:
    filled = WIDTH * done // of if of else 0
    bar = f"[{'#' * filled}{'.' * (WIDTH - filled)}] {100 * done // of:3} %" if of else ""
    print(f"\r{doing} {bar} {told}\x1b[K", end="", file=sys.stderr, flush=True)
