"""A small file system of its own, which a test can fill."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


class CannotMount(Exception):
    """Only who may mount can make a disk that is small."""


@contextlib.contextmanager
def mounted(disk: Path, megabytes: int) -> Iterator[Path]:
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = f"size={megabytes}m,mode=0711,uid={os.geteuid()},gid={os.getegid()}"
    mount = [*sudo, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotMount(str(error)) from error
    try:
        yield disk
    finally:
        subprocess.run([*sudo, "umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Write a file that takes all the room there is."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass
    return filler
