"""The whole of Pemba on one machine: what `pemba dev` starts, watches and stops.

    postgres ---------- db upgrade -+
                                    +- schema apply -+- serve
    spicedb_postgres -- spicedb ----+                +- relay

Stopping goes the other way.  A hard kill of the supervisor takes its children along (on Linux); what it could not is
noted in the data folder, and ended by the next start.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Protocol

from pemba.dev.data_folder import DataFolder
from pemba.dev.parts import DATABASE, OWNER, Options, Parts, compose
from pemba.dev.pemba_process import run_pemba
from pemba.dev.process import Server, StartError
from pemba.dev.ready import Ready

MAX_DEATHS = 5
DEATHS_WITHIN_SECONDS = 60.0
_WATCH_SECONDS = 0.2


class Reporter(Protocol):
    """Where a person is told what goes on."""

    def step(self, text: str) -> None:
        """A step of the start begins."""

    def progress(self, text: str) -> None:
        """The step moves on; comes about twice a second."""

    def problem(self, text: str) -> None:
        """Something went wrong, in several lines perhaps; we go on."""

    def ready(self, ready: Ready) -> None:
        """Everything runs; the ready file comes right after."""


def run(options: Options, reporter: Reporter) -> int:
    """Start everything, watch it until SIGINT, SIGTERM or SIGHUP, stop everything; returns the exit code.

    Raises StartError (ConfigError) where the start fails or processes keep dying, once all has been stopped.  A
    second signal kills what the first has not stopped yet; the exit code is 130 then.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    folder = DataFolder(options.settings.data_folder)
    try:
        with folder.locked():
            for name in folder.kill_leftovers():
                reporter.problem(f"ended {name}, which an earlier run left behind")
            stack = Stack(folder, compose(folder, options, reporter.progress), options, reporter)
            try:
                stack.start()
                stack.watch()
            finally:
                stack.stop()
    except _StopCutShort:
        return 130
    except KeyboardInterrupt:
        pass  # the usual end
    return 0


class _StopCutShort(KeyboardInterrupt):
    """A second signal came before everything had ended."""


class Stack:
    """The processes, from nothing to ready and back.  The caller holds the data folder."""

    def __init__(self, folder: DataFolder, parts: Parts, options: Options, reporter: Reporter) -> None:
        self._folder = folder
        self._parts = parts
        self._ready_files = [file for file in (folder.ready_file, options.ready_file) if file is not None]
        self._before_ready = options.before_ready
        self._reporter = reporter
        self._servers = parts.servers
        self._stopping = False
        self._recording = threading.Lock()
        for server in self._servers:
            server.on_spawn = self._record

    def start(self) -> None:
        """Everything up to the ready file.  Raises StartError; what runs by then is for `stop` to end."""
        parts = self._parts
        self._reporter.step("starting PostgreSQL and SpiceDB")
        self._at_once(self._start_database, self._start_spicedb)
        self._reporter.step("applying the permission schema")
        run_pemba("schema", "apply", settings=parts.pemba, log=self._folder.log("schema_apply"))
        self._reporter.step("starting serve and relay")
        self._at_once(lambda: self._begin(parts.serve), lambda: self._begin(parts.relay))
        if self._before_ready is not None:
            self._before_ready(parts.ready)
        self._reporter.ready(parts.ready)
        self._publish()

    def watch(self) -> None:
        """Start again what dies, for ever.  Raises StartError at more than five deaths in a minute."""
        deaths: deque[float] = deque(maxlen=MAX_DEATHS + 1)
        while True:
            time.sleep(_WATCH_SECONDS)
            for server in self._servers:
                if server.pid is None:
                    deaths.append(time.monotonic())
                    if len(deaths) > MAX_DEATHS and deaths[-1] - deaths[0] < DEATHS_WITHIN_SECONDS:
                        raise StartError(f"{len(deaths)} deaths within a minute, the last: {server.last_words()}")
                    self._revive(server)

    def stop(self) -> None:
        """End everything, the last started first; a KeyboardInterrupt meanwhile kills what is left."""
        self._stopping = True
        for file in self._ready_files:
            file.unlink(missing_ok=True)
        try:
            for server in reversed(self._servers):
                server.stop()
        except KeyboardInterrupt:
            for server in reversed(self._servers):
                server.kill()
            raise _StopCutShort from None
        finally:
            self._folder.forget_processes()

    def _revive(self, server: Server) -> None:
        self._reporter.problem(f"died, starting it again: {server.last_words()}")
        try:
            server.start()
            self._publish()
        except StartError as error:  # it is dead still: the next round counts that and tries again
            self._reporter.problem(str(error))

    def _start_database(self) -> None:
        parts = self._parts
        if parts.postgres is not None:
            self._begin(parts.postgres)
            parts.postgres.ensure_database(DATABASE, OWNER)
        run_pemba("db", "upgrade", settings=parts.pemba, log=self._folder.log("db_upgrade"))

    def _start_spicedb(self) -> None:
        parts = self._parts
        for server in (parts.spicedb_postgres, parts.spicedb):
            if server is not None:
                self._begin(server)

    def _begin(self, server: Server) -> None:
        if self._stopping:
            raise StartError("stopped meanwhile")
        server.start()

    def _at_once(self, *tasks: Callable[[], None]) -> None:
        """Run the tasks side by side.  The first failure stops what runs, so that the others end soon as well."""
        with ThreadPoolExecutor(len(tasks)) as pool:
            try:
                for done in as_completed([pool.submit(task) for task in tasks]):
                    done.result()
            except BaseException:
                self.stop()
                raise

    def _publish(self) -> None:
        pids = self._pids()
        ready = replace(self._parts.ready, pid=pids)
        for file in self._ready_files:
            ready.write(file)

    def _record(self) -> None:
        with self._recording:
            self._folder.record(self._pids())

    def _pids(self) -> dict[str, int]:
        running = {server.name: server.pid for server in self._servers}
        return {"dev": os.getpid()} | {name: pid for name, pid in running.items() if pid is not None}
