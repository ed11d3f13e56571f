"""What is done to the parts and the stores, and when."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tests.chaos.stores import Store, Stores
from tests.functional.instance import Instance, Process, alive, descendants, start_time

PARTS = ("api", "worker", "upkeep", "beat")
QUIET_SECONDS = (0.5, 3.0)  # between two faults of a lane
AT_ONCE = (0.0, 0.0)
Seconds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is done, holds for some seconds, and is taken back."""

    kind: str
    begin: Callable[[], None]
    end: Callable[[], None]
    seconds: Seconds
    alone: bool = False  # only when nothing else is wrong


class Lane:
    """One fault after the other, each kind once before any comes again."""

    def __init__(self, faults: Sequence[Fault], chance: random.Random) -> None:
        self._faults = faults
        self._chance = chance
        self._deck: list[Fault] = []
        self._under_way: Fault | None = None
        self._next_at = time.monotonic() + chance.uniform(*QUIET_SECONDS)

    @property
    def is_idle(self) -> bool:
        return self._under_way is None

    def step(self, note: Callable[[str], None], *, others_idle: bool) -> None:
        """Begin or end what is due; `note` is told the kind of what begins."""
        if time.monotonic() < self._next_at:
            return
        if self._under_way is not None:
            self.heal()
        else:
            self._deck = self._deck or self._chance.sample(self._faults, len(self._faults))
            fault = self._deck[-1]
            if fault.alone and not others_idle:
                return
            self._deck.pop()
            note(fault.kind)
            self._under_way = fault
            self._next_at = time.monotonic() + self._chance.uniform(*fault.seconds)
            fault.begin()

    def heal(self) -> None:
        """End what is under way."""
        if self._under_way is not None:
            self._under_way.end()
            self._under_way = None
            self._next_at = time.monotonic() + self._chance.uniform(*QUIET_SECONDS)


class Paused:
    """Processes that were stopped, to be let go on."""

    def __init__(self) -> None:
        self._processes: set[Process] = set()

    def pause(self, pids: Sequence[int]) -> None:
        for pid in pids:
            for process in {(pid, start_time(pid)), *descendants(pid)}:
                _signal(process[0], signal.SIGSTOP)
                self._processes.add(process)

    def go_on(self) -> None:
        for pid, _ in alive(self._processes):
            _signal(pid, signal.SIGCONT)
        self._processes.clear()


def of_parts(instance: Instance, chance: random.Random) -> list[Fault]:
    """What befalls API, workers and beat."""
    paused = Paused()

    def kill(name: str) -> None:
        pids = _pids(instance, name)
        below = sorted(pid for pid, _ in descendants(pids[0])) if pids else []
        _signal_all([chance.choice([*pids, *below])] if pids else [], signal.SIGKILL)

    def pause(name: str) -> None:
        paused.pause(_pids(instance, name))

    def end(name: str) -> None:
        _signal_all(_pids(instance, name), signal.SIGTERM)

    def restart() -> None:
        instance.stop(unbalanced="in the middle of the run")
        instance.start()

    faults = [Fault("restart everything but the stores", restart, _nothing, AT_ONCE, alone=True)]
    for name in PARTS:
        faults.append(Fault(f"kill {name}", partial(kill, name), _nothing, (0.0, 4.0)))
        longest = 14.0 if name == "worker" else 6.0
        faults.append(Fault(f"pause {name}", partial(pause, name), paused.go_on, (1.0, longest)))
    for name in ("api", "worker"):
        faults.append(Fault(f"restart {name}", partial(end, name), _nothing, (0.0, 4.0)))
    return faults


def of_stores(stores: Stores, chance: random.Random) -> list[Fault]:
    """What befalls PostgreSQL, Redis, their disks and the connections to them."""
    return [fault for store in stores.all.values() for fault in _of_store(store, chance)]


def _of_store(store: Store, chance: random.Random) -> list[Fault]:
    paused = Paused()
    name = store.name

    def kill() -> None:
        store.is_held_down = True
        below = sorted(pid for pid, _ in descendants(store.process.pid))
        _signal(chance.choice([store.process.pid, store.process.pid, *below[:1]]), signal.SIGKILL)

    def up_again() -> None:
        store.is_held_down = False

    def restart() -> None:
        store.process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)

    def cut() -> None:
        store.proxy.cut(chance.randint(1, 8))

    def fill() -> None:
        if store.disk is not None:
            store.disk.fill()

    def free() -> None:
        if store.disk is not None:
            store.disk.free()

    faults = [
        Fault(f"kill {name}", kill, up_again, (0.0, 8.0)),
        Fault(f"pause {name}", lambda: paused.pause([store.process.pid]), paused.go_on, (1.0, 9.0)),
        Fault(f"restart {name}", restart, _nothing, (0.0, 2.0)),
        Fault(f"cut replies of {name}", cut, lambda: store.proxy.cut(0), (1.0, 4.0)),
        Fault(f"cut all connections to {name}", store.proxy.cut_all, _nothing, (0.0, 2.0)),
        Fault(
            f"slow connections to {name}",
            lambda: store.proxy.set_mode("slow"),
            lambda: store.proxy.set_mode("open"),
            (2.0, 8.0),
        ),
        Fault(
            f"silent connections to {name}",
            lambda: store.proxy.set_mode("silent"),
            lambda: store.proxy.set_mode("open"),
            (1.0, 9.0),
        ),
    ]
    if store.disk is not None:
        faults.append(Fault(f"disk of {name} full", fill, free, (3.0, 10.0)))
    return faults


def _pids(instance: Instance, name: str) -> list[int]:
    """The part's process, if it runs now: run.json may name one that has ended."""
    supervisor = instance.process
    if supervisor is None:
        return []
    ours = {pid for pid, _ in descendants(supervisor.pid)}
    with contextlib.suppress(FileNotFoundError, KeyError):
        return [pid for pid in [int(instance.run[name]["pid"])] if pid in ours]
    return []


def _signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        _signal(pid, number)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _nothing() -> None:
    """What there is to take back of something that is over at once."""
