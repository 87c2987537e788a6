"""Servers as child processes: start until ready, stop, kill, and die with us.

Every child gets a session of its own, so that Ctrl-C reaches us alone and the order of a stop is ours, and
(on Linux) a signal when we die, also by SIGKILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil

_LAUNCH = Path(__file__).with_name("_launch.py")
_POLL_SECONDS = 0.02
_TAIL_LINES = 15
_TAIL_BYTES = 8192
_MAX_LOG_BYTES = 16 * 1024 * 1024

# Linux sends the death signal when the *thread* that forked ends: so all children come from one that stays.
_spawner = ThreadPoolExecutor(1, thread_name_prefix="pemba-spawn")


class StartError(Exception):
    """A server or a step of the start did not work; the message says which, why, and what to do."""


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    user: str = "",
    death_signal: signal.Signals = signal.SIGKILL,
    folder: Path | None = None,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start `command` (an absolute path and arguments); its output is appended to `log` (mode 0600)."""
    launch = [sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), str(int(death_signal)), user]
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        return _spawner.submit(
            subprocess.Popen,
            [*launch, *command],
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        ).result()


def run(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    user: str = "",
    folder: Path | None = None,
    script: str = "",
    seconds: float = 120.0,
) -> None:
    """Run `command` to its end with `script` as its input.  Raises StartError with its last output."""
    start = log_size(log)
    process = spawn(command, log=log, environment=environment, user=user, folder=folder, stdin=subprocess.PIPE)
    try:
        process.communicate(script.encode(), timeout=seconds)
    except subprocess.TimeoutExpired:
        raise StartError(f"{name} took longer than {seconds:.0f} s{log_tail(log, start)}") from None
    finally:
        kill_family(process)
    if process.returncode != 0:
        raise StartError(f"{name} failed ({_describe(process.returncode)}){log_tail(log, start)}")


class Server(ABC):
    """A child process.  `start()` after `stop()`, `kill()` or a death runs it again, on the same address."""

    stop_signal = signal.SIGTERM
    death_signal = signal.SIGKILL
    start_seconds = 60.0
    stop_seconds = 15.0
    user = ""
    folder: Path | None = None

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.on_spawn: Callable[[], None] = lambda: None
        """Called as soon as there is a process, before it is ready."""
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def environment(self) -> dict[str, str]: ...

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it answers; takes a second at most."""

    def prepare(self) -> None:  # noqa: B027  most kinds need nothing
        """What has to be done before every start."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Run it and return once it is ready.  Raises StartError, and then leaves no process."""
        if self.pid is not None:
            return
        self._roll_log()
        self.prepare()
        self._log_start = log_size(self.log)
        self._process = spawn(
            self.command(),
            log=self.log,
            environment=self.environment(),
            user=self.user,
            death_signal=self.death_signal,
            folder=self.folder,
        )
        try:
            self.on_spawn()
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask it to end, and kill it after `stop_seconds`."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(self.stop_seconds)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL to it and all that it started."""
        if self._process is not None:
            kill_family(self._process)

    def restart(self) -> None:
        self.stop()
        self.start()

    def last_words(self) -> str:
        """How it ended, and the last lines of its log since it was started."""
        code = self._process.poll() if self._process is not None else None
        ended = "runs" if code is None else _describe(code)
        return f"{self.name} ({ended}){log_tail(self.log, self._log_start)}"

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.start_seconds
        while not self.is_ready():
            if process.poll() is not None:
                raise StartError(f"ended while it started: {self.last_words()}")
            if time.monotonic() > deadline:
                raise StartError(f"not ready after {self.start_seconds:.0f} s: {self.last_words()}")
            time.sleep(_POLL_SECONDS)

    def _roll_log(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if log_size(self.log) > _MAX_LOG_BYTES:
            self.log.replace(self.log.with_name(self.log.name + ".1"))


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a child of ours and to all below it; returns once they are gone."""
    if process.poll() is not None:
        return
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    process.kill()
    kill_all(below)
    process.wait()


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL to those that still run, and wait until they do not.

    psutil compares start times, so a reused process id is left alone.  Raises StartError after ten seconds.
    """
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + 10
    while any(_runs(process) for process in processes):
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in processes if _runs(process))
            raise StartError(f"processes {pids} do not end by SIGKILL")
        time.sleep(_POLL_SECONDS)


def _runs(process: psutil.Process) -> bool:
    """A zombie does not: it is gone as soon as its parent, not always we, asks for it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def log_size(log: Path) -> int:
    """Bytes of a log so far; 0 where there is none."""
    return log.stat().st_size if log.exists() else 0


def log_tail(log: Path, start: int = 0) -> str:
    """`; the end of FILE:` and its last lines, none of them from before the byte `start`."""
    with log.open("rb") as file:
        file.seek(max(start, log_size(log) - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
    return "".join(f"\n  {line}" for line in [f"the end of {log}:", *lines]) if lines else f"; {log} says nothing"


def _describe(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
