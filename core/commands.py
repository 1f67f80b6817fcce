"""The commands of `python main.py`: serve, which is the default, and a person's and an operator's
tools."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence

from core import doctor, serving, transfer
from core.admin_keys import make_key
from core.config import Settings
from storage.migrate import migrate

Command = tuple[str, Callable[[], int]]


def run(app: str, arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for and return the process's exit code."""
    commands = _commands(app)
    parser = argparse.ArgumentParser(prog="python main.py", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (text, _) in commands.items():
        subparsers.add_parser(name, help=text)
    for name, text in transfer.COMMANDS.items():
        transfer.add_arguments(subparsers.add_parser(name, help=text), name)
    chosen = parser.parse_args(arguments)
    if chosen.command in transfer.COMMANDS:
        return transfer.run(chosen.command, chosen)
    return commands[chosen.command or "serve"][1]()


def names() -> set[str]:
    return {*_commands(""), *transfer.COMMANDS}


def _commands(app: str) -> dict[str, Command]:
    return {
        "serve": ("serve until Ctrl-C (the default)", lambda: serving.serve(app)),
        "doctor": ("check the configuration and all that the service needs", doctor.run),
        "migrate": ("bring the tables up to date and do nothing else", _migrate),
        "admin-key": ("print a new key for ADMIN_API_KEY", _print_admin_key),
    }


def _migrate() -> int:
    settings = Settings()
    if settings.database_url is None:
        print("DATABASE_URL is not set: at home each start does this", file=sys.stderr)
        return 2
    for name in asyncio.run(migrate(settings.database_url.get_secret_value())):
        print(f"Applied migration {name}")
    return 0


def _print_admin_key() -> int:
    print(make_key())
    return 0
