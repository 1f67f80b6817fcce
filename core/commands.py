"""The commands of `python main.py`: serve, which is the default, and an operator's tools."""

import argparse
from collections.abc import Callable, Sequence

from core import serving
from core.admin_keys import make_key


def run(app: str, arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for and return the process's exit code."""
    commands: dict[str, tuple[str, Callable[[], int]]] = {
        "serve": ("serve until Ctrl-C (the default)", lambda: serving.serve(app)),
        "admin-key": ("print a new key for ADMIN_API_KEY", _print_admin_key),
    }
    parser = argparse.ArgumentParser(prog="python main.py", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (text, _) in commands.items():
        subparsers.add_parser(name, help=text)
    chosen = parser.parse_args(arguments).command or "serve"
    return commands[chosen][1]()


def _print_admin_key() -> int:
    print(make_key())
    return 0
