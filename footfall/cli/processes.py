"""Starting and stopping child processes so that none of them outlives whoever started it."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TAIL_BYTES = 2_000


def spawn(
    command: Sequence[str],
    log: Path,
    *,
    death_signal: signal.Signals = signal.SIGTERM,
    as_uid: int | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, its output appended to `log`.

    `death_signal` is what it gets when the calling *thread* ends without having stopped it. With
    `as_uid` it runs as that user, who may still pass through folders that are only root's. The
    process is the command itself, not a wrapper: its pid can be signalled.
    """
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - the commands are our own
            [*_privileges(death_signal, as_uid), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=folder,
            start_new_session=True,  # Ctrl-C is for the one who stops them in order
        )


def _privileges(death_signal: signal.Signals, as_uid: int | None) -> list[str]:
    # setpriv rather than a preexec_fn, which is unsafe once the caller has threads; it also sets
    # the death signal after the change of user, which clears it
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    death = ["--pdeathsig", death_signal.name.removeprefix("SIG")]
    if as_uid is None:
        return [setpriv, *death, "--"]
    user = [f"--reuid={as_uid}", f"--regid={as_uid}", "--clear-groups"]
    caps = ["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]
    return [setpriv, *user, *caps, *death, "--"]


def stop(
    process: subprocess.Popen[bytes],
    *signals: signal.Signals,
    patience_seconds: float = 30,
) -> None:
    """Send the signals one after the other, each with time to work, then SIGKILL to the rest."""
    for number in signals:
        if process.poll() is not None:
            break
        process.send_signal(number)
        wait_for_end([process], patience_seconds)
    kill_session(process)


def wait_for_end(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> bool:
    """Whether all of them have ended within that time."""
    deadline = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
    return True


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the session that `process` began, itself included. Twice is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tail(log: Path, start: int = 0) -> str:
    """The last lines of a log, from byte `start` on at the earliest."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace").strip()
