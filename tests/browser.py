"""A real Chromium for the tests; `python -m tests.browser` installs it when it is missing."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright


def chromium() -> str | None:
    """The system's own Chromium, or None for the one that Playwright has downloaded."""
    return shutil.which("chromium")


def install() -> None:
    """Debian's package where there is one: it needs no download from anywhere else."""
    if chromium():
        return
    if _is_debian() and os.geteuid() == 0:
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
        packages = ["apt-get", "install", "-qq", "--no-install-recommends", "chromium"]
        subprocess.run([*packages, "fonts-liberation"], check=True, env=quiet)
    else:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=True)


def _is_debian() -> bool:
    try:
        return platform.freedesktop_os_release().get("ID") == "debian"
    except OSError:
        return False


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=chromium(),
            # Chromium refuses root a sandbox; the tests open only pages of ours.
            args=["--no-sandbox"] if os.geteuid() == 0 else [],
        )
        yield running
        await running.close()


if __name__ == "__main__":
    install()
