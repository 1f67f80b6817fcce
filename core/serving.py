"""Run the service from the command line: check the settings, serve, say what to open next."""

import logging
import resource
import signal
import socket
import sys
from types import FrameType

import uvicorn
from pydantic import ValidationError

from core import logs
from core.config import Settings, complaints

MOST_DESCRIPTORS = 8_192


def serve(app: str) -> int:
    """Serve until Ctrl-C or SIGTERM; return the process's exit code."""
    try:
        settings = Settings()
    except ValidationError as error:
        print(*complaints(error), sep="\n", file=sys.stderr)
        return 2
    logs.configure(settings.log_level)
    logging.getLogger("uvicorn.error").addFilter(_plain_start_errors)
    if _is_taken(settings.host, settings.port):
        print(f"Port {settings.port} is in use: choose another with PORT=…", file=sys.stderr)
        return 2
    server = _Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            access_log=False,
            log_config=None,
            log_level="warning",
            backlog=4096,
            timeout_graceful_shutdown=20,
            proxy_headers=False,
            server_header=False,
        ),
        f"http://{settings.host}:{settings.port}",
    )
    _open_many()
    server.run()
    return 0 if server.started else 1


def _is_taken(host: str, port: int) -> bool:
    """Tell before Postgres is started that nothing would come of it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _open_many() -> None:
    """The usual soft limit of 1,024 descriptors would be spent by as many idle connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(MOST_DESCRIPTORS, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _plain_start_errors(record: logging.LogRecord) -> bool:
    """Of a start that failed for a reason of the operator's, print the reason and no traceback."""
    text = record.getMessage().strip()
    if text.startswith("Application startup failed"):
        return False
    kind, _, reason = text.rpartition("\n")[2].partition(": ")
    if kind.startswith(("core.", "storage.")):
        text = f"Cannot start: {reason}"
    elif not text.startswith("Traceback"):
        return True
    print(text, file=sys.stderr)
    return False


class _Server(uvicorn.Server):
    """Uvicorn that says in plain words where it is, once it is there."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._address = address

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop in order; unlike uvicorn, end with 0 then, and without Ctrl-C's traceback."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"\nMemory Layer is ready at {self._address}")
            print(f"  Open it in the browser: {self._address}/")
            print(f"  Try the API:            {self._address}/docs")
            print(f"  How its parts are:      {self._address}/health")
            print("  Stop it:                Ctrl-C\n", flush=True)
