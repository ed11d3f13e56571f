"""PostgreSQL and Redis as `footfall up` starts them, behind proxies and, for root, on small disks."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from footfall.cli.embedded import POSTGRES_PORT, Postgres, Redis, Server, socket_folder
from footfall.cli.processes import kill_session
from tests.chaos.proxy import Proxy

DISK_BYTES = {"postgres": 384 * 2**20, "redis": 128 * 2**20}
AGAIN_SECONDS = 1.0  # between attempts to start a store, as whoever looks after it does
FILL = "filled-by-the-run"
# small enough to want new files soon, which is what a full disk refuses
WAL = "min_wal_size = 32MB\nmax_wal_size = 64MB\n"


class Disk:
    """A file system in memory of a certain size, mounted at `folder`."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        options = f"size={size_bytes},mode=755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "footfall-chaos", str(folder)], check=True)

    def fill(self) -> None:
        """Leave not one byte."""
        descriptor = os.open(self.folder / FILL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            while os.write(descriptor, bytes(2**20)):
                pass
        except OSError:
            pass  # full
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Take back what `fill` took. Twice is fine."""
        (self.folder / FILL).unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it; what is on it is gone."""
        subprocess.run(["umount", str(self.folder)], check=True)


class Store:
    """One store: its processes, its disk if it has one, and the proxy that everybody comes through."""

    def __init__(self, name: str, server: Server, socket: Path, disk: Disk | None) -> None:
        self.name = name
        self.server = server
        self.disk = disk
        self.proxy = Proxy(socket)
        self.process = server.start()
        self._again_at = 0.0
        self.is_held_down = False  # not to be started again now

    def tend(self) -> None:
        """Start it again when it has ended."""
        if self.is_held_down or self.process.poll() is None or time.monotonic() < self._again_at:
            return
        kill_session(self.process)
        self.process = self.server.spawn()
        self._again_at = time.monotonic() + AGAIN_SECONDS

    def close(self) -> None:
        """End it and its proxy."""
        self.proxy.close()
        self.server.stop(self.process)


class Stores:
    """Both stores of a run, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disks: dict[str, Disk] = {}
        self.all: dict[str, Store] = {}
        sockets = socket_folder(folder)
        redis = Redis(self._place("redis"), sockets, folder / "logs" / "redis.log")
        postgres = Postgres(self._place("postgres"), sockets, folder / "logs" / "postgres.log")
        postgres.prepare()
        with (postgres.folder / "postgresql.conf").open("a") as settings:
            settings.write(WAL)
        self._add("postgres", postgres, sockets / f".s.PGSQL.{POSTGRES_PORT}")
        self._add("redis", redis, redis.socket)

    @property
    def environment(self) -> dict[str, str]:
        """The addresses that lead through the proxies."""
        port = {name: store.proxy.port for name, store in self.all.items()}
        plain = "sslmode=disable&gssencmode=disable"
        return {
            "DATABASE_URL": f"postgresql://footfall@127.0.0.1:{port['postgres']}/footfall?{plain}",
            "REDIS_URL": f"redis://127.0.0.1:{port['redis']}/0",
        }

    def tend(self) -> None:
        """Start again what has ended."""
        for store in self.all.values():
            store.tend()

    def keep_data(self) -> None:
        """Copy what is on the disks in memory into the folder, for whoever looks what went wrong."""
        for name, disk in self.disks.items():
            shutil.copytree(disk.folder, self.folder / f"kept-{name}", symlinks=True)

    def close(self, *, keep: bool) -> None:
        """End everything; with `keep`, the data stay in the folder."""
        for store in self.all.values():
            store.close()
        if keep:
            self.keep_data()
        for disk in self.disks.values():
            disk.close()

    def _place(self, name: str) -> Path:
        """Where its data go; on a disk of its own where one can be made."""
        mount = self.folder / f"disk-{name}"
        if os.geteuid() == 0 and shutil.which("mount"):
            try:
                self.disks[name] = Disk(mount, DISK_BYTES[name])
            except subprocess.CalledProcessError:
                return self.folder / name
            return mount / name
        return self.folder / name

    def _add(self, name: str, server: Server, socket: Path) -> None:
        self.all[name] = Store(name, server, socket, self.disks.get(name))
