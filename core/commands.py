"""The commands of `python main.py`: serve, which is the default, and a person's and an operator's
tools."""

import argparse
from collections.abc import Callable, Sequence

from core import serving, transfer
from core.admin_keys import make_key

HOME = "http://127.0.0.1:8000"


def run(app: str, arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for and return the process's exit code."""
    commands: dict[str, tuple[str, Callable[[], int]]] = {
        "serve": ("serve until Ctrl-C (the default)", lambda: serving.serve(app)),
        "admin-key": ("print a new key for ADMIN_API_KEY", _print_admin_key),
    }
    transfers = {
        "import": "bring an assistant's export to a server",
        "export": "take everything from a server, as a zip",
        "decrypt": "open an export that was encrypted",
    }
    parser = argparse.ArgumentParser(prog="python main.py", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (text, _) in commands.items():
        subparsers.add_parser(name, help=text)
    for name, text in transfers.items():
        transfer.add_arguments(subparsers.add_parser(name, help=text), name, HOME)
    chosen = parser.parse_args(arguments)
    if chosen.command in transfers:
        return transfer.run(chosen.command, chosen)
    return commands[chosen.command or "serve"][1]()


def _print_admin_key() -> int:
    print(make_key())
    return 0
