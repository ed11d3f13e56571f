"""Hosts made of network namespaces, with a switch between them: what runs on each meets the others by IP."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000
NETWORK = "10.99.0"


class Network:
    """One switch and its hosts; `close` removes all of it."""

    def __init__(self, names: list[str]) -> None:
        self._prefix = f"footfall{os.getpid()}"
        self._switch = f"{self._prefix}-switch"
        self._namespaces: list[str] = []
        self.addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, start=1)}
        try:
            self._add_namespace(self._switch)
            self._ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
            self._ip("-n", self._switch, "link", "set", "bridge", "up")
            for name in names:
                self._add_host(name)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove every namespace, and with them all that connects them."""
        for namespace in self._namespaces:
            subprocess.run(["ip", "netns", "delete", namespace], check=False)

    def cut_off(self, name: str) -> None:
        """Pull the host's cable."""
        self._ip("-n", self._switch, "link", "set", name, "down")

    def connect(self, name: str) -> None:
        """Put the cable back."""
        self._ip("-n", self._switch, "link", "set", name, "up")

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Whatever this thread starts or connects in the block belongs to that host."""
        libc = ctypes.CDLL(None, use_errno=True)
        there = Path("/run/netns") / f"{self._prefix}-{name}"
        with Path("/proc/thread-self/ns/net").open() as own, there.open() as theirs:
            _enter(libc, theirs.fileno())
            try:
                yield
            finally:
                _enter(libc, own.fileno())

    def _add_host(self, name: str) -> None:
        namespace = f"{self._prefix}-{name}"
        self._add_namespace(namespace)
        cable = ["type", "veth", "peer", "name", "eth0", "netns", namespace]
        self._ip("-n", self._switch, "link", "add", name, *cable)
        self._ip("-n", self._switch, "link", "set", name, "master", "bridge", "up")
        self._ip("-n", namespace, "address", "add", f"{self.addresses[name]}/24", "dev", "eth0")
        self._ip("-n", namespace, "link", "set", "eth0", "up")

    def _add_namespace(self, namespace: str) -> None:
        self._ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        self._ip("-n", namespace, "link", "set", "lo", "up")

    def _ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def network(names: list[str]) -> Iterator[Network]:
    """Such hosts until the block ends; the test is skipped where they cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("hosts of their own need root, and the command ip (of iproute2)")
    try:
        made = Network(names)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine makes no network namespaces: {error.stderr.decode().strip()}")
    try:
        yield made
    finally:
        made.close()


def _enter(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
