"""The command line: `python main.py` serves; a sub-command does one thing and ends."""

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

from core.admin_keys import make_key


class Command(NamedTuple):
    """`run` returns the process's exit code."""

    help: str
    run: Callable[[], int]


def _print_admin_key() -> int:
    print(make_key())
    return 0


COMMANDS = {
    "admin-key": Command("print a new key for ADMIN_API_KEY", _print_admin_key),
}


def run(app: str, arguments: Sequence[str]) -> int:
    """Serve `app`, or run the sub-command that `arguments` name; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="main.py", description="Memory Layer. Without a command it serves."
    )
    choices = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        choices.add_parser(name, help=command.help, description=command.help)
    chosen = parser.parse_args(arguments).command
    if chosen:
        return COMMANDS[chosen].run()
    from core.serving import serve

    return serve(app)
