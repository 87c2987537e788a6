"""What `pemba dev` keeps in its folder from one run to the next, besides the databases.

lock            held while a `pemba dev` runs here
processes.json  its processes, for the next run to end what a hard kill left
ready.json      where it listens, while it does
secrets/        random, made once
logs/           one a process
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from pemba.dev.process import StartError, kill_all
from pemba.dev.ready import FILE_NAME, write_private


class DataFolder:
    """A folder (made where it is missing, private) that one `pemba dev` at a time uses."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.ready_file = self.path / FILE_NAME
        self._processes = self.path / "processes.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder.  Raises StartError where another process does."""
        for folder in (self.path, self.path / "logs", self.path / "secrets"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise StartError(
                    f"pemba dev already runs on {self.path} (process {file.read() or 'unknown'}):"
                    " stop it, or give --data-dir another folder"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            file.truncate(0)

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def secret(self, name: str) -> Path:
        """A file (mode 0600) with 256 random bits in base64url, made on the first use."""
        file = self.path / "secrets" / name
        if not file.exists():
            write_private(file, secrets.token_urlsafe(32))
        return file

    def record(self, pids: Mapping[str, int]) -> None:
        """Note processes of ours; with its start time, so that a reused process id is never taken for one."""
        started: dict[str, tuple[int, float]] = {}
        for name, pid in pids.items():
            with suppress(psutil.NoSuchProcess):
                started[name] = (pid, psutil.Process(pid).create_time())
        write_private(self._processes, json.dumps(started))

    def kill_leftovers(self) -> list[str]:
        """End what an earlier run left behind, with all below it.  Returns the names."""
        try:
            recorded = json.loads(self._processes.read_text())
        except (FileNotFoundError, ValueError):
            recorded = {}
        self.ready_file.unlink(missing_ok=True)
        found = {name: each for name, (pid, start) in recorded.items() if (each := _same(pid, start)) is not None}
        for process in found.values():
            with suppress(psutil.NoSuchProcess):
                kill_all([process, *process.children(recursive=True)])
        self._processes.unlink(missing_ok=True)
        return list(found)

    def forget_processes(self) -> None:
        """To be called once all of them have ended."""
        self._processes.unlink(missing_ok=True)


def _same(pid: int, start: float) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.create_time() == start:
            return process
    return None
