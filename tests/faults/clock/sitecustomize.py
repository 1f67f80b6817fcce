"""Runs before the service where this folder is in PYTHONPATH: its calendar follows a file.

SIGUSR1 makes it say where each of its tasks stands.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import time_machine


def follow(file: Path) -> None:
    """The file says by how many hours time is off; the monotonic clock knows nothing of it."""
    off, travelling = 0, None
    while True:
        told = int(file.read_text() or off)
        if told != off:
            if travelling:
                travelling.stop()
            travelling = time_machine.travel(timedelta(hours=told), tick=True) if told else None
            if travelling:
                travelling.start()
            off = told
        time.sleep(0.02)


def say_where_tasks_stand(*_: object) -> None:
    for task in asyncio.all_tasks():
        task.print_stack(limit=5, file=sys.stderr)


signal.signal(signal.SIGUSR1, say_where_tasks_stand)
threading.Thread(target=follow, args=(Path(os.environ["CLOCK_FILE"]),), daemon=True).start()
