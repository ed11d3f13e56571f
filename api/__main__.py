"""`python -m api` serves the API."""

import resource
import signal
import sys
from types import FrameType
from typing import Any

import click
import uvicorn

from api.asgi import create_app
from api.connection import Connection

STOP_SECONDS = 8  # for requests under way when the process is told to end
# Longer than proxies keep their connections, so that they end them and no request meets the end
IDLE_SECONDS = 75

UVICORN: dict[str, Any] = {
    "http": Connection,
    "loop": "uvloop",  # on asyncio's own loop a request costs a quarter more
    "interface": "asgi3",
    "ws": "none",
    "lifespan": "off",
    "log_config": None,  # `footfall.logs` has it
    "access_log": False,  # it would keep what we hash
    "proxy_headers": False,  # FOOTFALL_TRUSTED_PROXIES says how many are trusted
    "server_header": False,
    "timeout_keep_alive": IDLE_SECONDS,
    "timeout_graceful_shutdown": STOP_SECONDS,
}


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
def main(host: str, port: int) -> None:
    """Serve Footfall's API and dashboard until told to end."""
    signal.signal(signal.SIGTERM, _end)  # uvicorn gives the signal on when it is done
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection each
    uvicorn.Server(uvicorn.Config(create_app, factory=True, host=host, port=port, **UVICORN)).run()


def _end(_: int, __: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
