"""A Redis of one test, which may do with it what it likes."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from footfall.cli import embedded


class OwnRedis:
    """The server, running."""

    def __init__(self, folder: Path) -> None:
        self.server = embedded.Redis(folder / "redis", embedded.socket_folder(folder), folder / "redis.log")
        self.process: subprocess.Popen[bytes] = self.server.start()

    def start(self) -> None:
        """Start it again, with the data that it had."""
        self.process = self.server.start()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It takes connections and commands, and answers when the block has ended."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)
