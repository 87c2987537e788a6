"""`pemba dev` as a person starts it: one command from nothing to a stack that answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from pemba.cli.failure import ExitCode
from pemba.config import DevSettings, load
from pemba.dev.demo import CHECKS
from pemba.dev.health import is_serving
from pemba.dev.postgres import Postgres
from pemba.dev.spicedb import SpiceDB

START_SECONDS = 90.0
STOP_SECONDS = 60.0
CHILDREN = {"postgres", "spicedb_postgres", "spicedb", "serve", "relay"}


class Dev:
    """A `pemba dev` on free ports; everything of its own below `home`."""

    def __init__(self, home: Path, *arguments: str, **environment: str) -> None:
        self._home = home
        self.data = home / ".local" / "share" / "pemba" / "dev"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PEMBA_", "XDG_"))}
        command = [sys.executable, "-m", "pemba", "dev", "--grpc-port", "0", "--http-port", "0", *arguments]
        cache = str(load(DevSettings).cache_folder)  # what was built before is as good
        with (home / "stderr").open("a") as errors:
            self.process = subprocess.Popen(
                command,
                env={**inherited, "PEMBA_CACHE_DIR": cache, "HOME": str(home), **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def wait_until_ready(self) -> dict[str, Any]:
        """What the ready file says, once the line stands on stdout."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("pemba ready grpc=127.0.0.1:"), self.errors
        found: dict[str, Any] = wait_for(self.ready)
        return found

    def ready(self) -> dict[str, Any] | None:
        file = self.data / "ready.json"
        found: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
        return found

    @property
    def errors(self) -> str:
        """What it said on stderr."""
        return (self._home / "stderr").read_text()

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        self.process.communicate(timeout=START_SECONDS)
        return self.process.returncode

    def end(self, number: int) -> int:
        """Send the signal; returns the exit code."""
        self.process.send_signal(number)
        self.process.communicate(timeout=STOP_SECONDS)
        return self.process.returncode


def wait_for(found: Callable[[], Any], seconds: float = START_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.05)
    return result


def processes(ready: dict[str, Any]) -> list[psutil.Process]:
    """The stack's processes and all below them."""
    own = [psutil.Process(pid) for pid in ready["pid"].values()]
    return own + [child for process in own for child in process.children(recursive=True)]


def assert_gone(before: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(before, timeout=20)
    assert alive == []


@contextmanager
def running(home: Path, *arguments: str, **environment: str) -> Iterator[tuple[Dev, dict[str, Any]]]:
    dev = Dev(home, *arguments, **environment)
    try:
        yield dev, dev.wait_until_ready()
    finally:
        if dev.process.poll() is None:
            dev.end(signal.SIGTERM)


@pytest.fixture
def home(tmp_path: Path, spicedb_program: Path) -> Path:
    """An empty home that nobody else may enter."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    assert spicedb_program.exists()
    return folder


def test_one_command_brings_up_everything_and_ctrl_c_takes_it_down(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    with running(home, "--ready-file", str(file)) as (dev, ready):
        assert set(ready["pid"]) == CHILDREN | {"dev"}
        assert is_serving(ready["grpc"])
        assert is_serving(ready["spicedb_endpoint"])
        assert wait_for(file.exists)
        assert json.loads(file.read_text()) == ready
        assert file.stat().st_mode & 0o777 == 0o600
        before = processes(ready)
        command_lines = " ".join(part for process in before for part in process.cmdline())
        assert ready["key"] not in command_lines
        assert ready["spicedb_key"] not in command_lines

        code = dev.end(signal.SIGINT)

    assert code == 0
    assert_gone(before)
    assert not file.exists()
    assert dev.ready() is None


def test_data_and_secrets_stay_from_one_run_to_the_next_also_after_a_hard_kill(home: Path) -> None:
    with running(home) as (dev, first):
        before = processes(first)
        dev.process.kill()
        dev.process.communicate(timeout=STOP_SECONDS)

    with running(home) as (_, second):
        assert_gone(before)
        assert second["key"] == first["key"]
        assert second["spicedb_key"] == first["spicedb_key"]
        assert is_serving(second["grpc"])


def test_what_dies_is_named_and_started_again_on_the_same_address(home: Path) -> None:
    with running(home) as (dev, ready):
        for name in ("relay", "spicedb", "serve", "postgres"):
            killed = (dev.ready() or {})["pid"][name]
            os.kill(killed, signal.SIGKILL)
            after = wait_for(partial(_another, dev, name, killed))

            assert {**after, "pid": None} == {**ready, "pid": None}
            assert f"died, starting it again: {name} (killed by SIGKILL)" in dev.errors
        wait_for(lambda: is_serving(ready["grpc"]) and is_serving(ready["spicedb_endpoint"]))


def _another(dev: Dev, name: str, killed: int) -> dict[str, Any] | None:
    """The ready file, once it names another process than the one that was killed."""
    ready = dev.ready()
    return ready if ready is not None and ready["pid"].get(name, killed) != killed else None


def test_one_that_keeps_dying_stops_everything(home: Path) -> None:
    with running(home) as (dev, ready):
        before, killed = processes(ready), 0
        while (pid := wait_for(partial(_another_relay, dev, killed))) > 0:
            os.kill(pid, signal.SIGKILL)
            killed = pid
        dev.process.communicate(timeout=STOP_SECONDS)

    assert dev.process.returncode == ExitCode.FAILED
    assert "deaths within a minute, the last: relay" in dev.errors
    assert_gone(before)


def _another_relay(dev: Dev, killed: int) -> int:
    """The process id of a relay that was not killed yet; 0 where there is none; -1 once `pemba dev` has ended."""
    if dev.process.poll() is not None:
        return -1
    ready = _another(dev, "relay", killed)
    return ready["pid"]["relay"] if ready is not None else 0


def test_a_second_one_on_the_same_data_is_refused(home: Path) -> None:
    with running(home) as (_, ready):
        second = Dev(home)

        assert second.wait() == ExitCode.FAILED
        assert "pemba dev already runs on" in second.errors
        assert "--data-dir" in second.errors
        assert is_serving(ready["grpc"])


def test_a_taken_port_is_refused_by_the_name_of_its_flag(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        dev = Dev(home, "--grpc-port", str(other.getsockname()[1]))

        assert dev.wait() == ExitCode.FAILED
    assert "--grpc-port" in dev.errors
    assert len(dev.errors.splitlines()) == 1


def test_a_start_that_fails_says_why_and_leaves_nothing(home: Path) -> None:
    dev = Dev(home, PEMBA_SPICEDB_ENDPOINT="127.0.0.1:1", PEMBA_SPICEDB_KEY="k" * 32)

    assert dev.wait() == ExitCode.FAILED
    assert "pemba dev: pemba schema apply failed" in dev.errors
    assert dev.ready() is None
    assert not (dev.data / "postgres" / "data" / "postmaster.pid").exists()


def test_a_spicedb_without_its_key_is_refused_by_the_name_of_the_setting(home: Path) -> None:
    dev = Dev(home, PEMBA_SPICEDB_ENDPOINT="127.0.0.1:1")

    assert dev.wait() == ExitCode.USAGE
    assert "PEMBA_SPICEDB_KEY" in dev.errors


def test_servers_that_the_settings_name_are_used_instead_of_embedded_ones(
    home: Path, own_postgres: Callable[[], Postgres], own_spicedb: Callable[[], SpiceDB]
) -> None:
    postgres, spicedb = own_postgres(), own_spicedb()
    settings = {
        "PEMBA_DATABASE_URL": postgres.url("pemba", "pemba"),
        "PEMBA_SPICEDB_ENDPOINT": spicedb.endpoint,
        "PEMBA_SPICEDB_KEY": spicedb.key,
    }

    with running(home, **settings) as (_, ready):
        assert set(ready["pid"]) == {"dev", "serve", "relay"}
        assert ready["database_url"] == settings["PEMBA_DATABASE_URL"]
        assert ready["spicedb_endpoint"] == spicedb.endpoint

    assert postgres.pid is not None
    assert spicedb.pid is not None


def test_an_interrupt_during_the_start_leaves_nothing(home: Path) -> None:
    dev = Dev(home)
    noted = wait_for(lambda: dev.data.exists() and list(dev.data.glob("processes.json")))
    before = [psutil.Process(pid) for pid, _ in json.loads(noted[0].read_text()).values()]

    assert dev.end(signal.SIGINT) == 0
    assert_gone(before)
    assert dev.ready() is None


def test_with_demo_the_companies_are_there_when_it_is_ready(home: Path) -> None:
    with running(home, "--demo") as (dev, _):
        checks = [line.strip() for line in dev.errors.splitlines() if "pemba check " in line]
        assert len(checks) == len(CHECKS)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PEMBA_", "XDG_"))}
        done = subprocess.run(
            [sys.executable, "-m", *checks[0].split()],
            env={**environment, "HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stdout == f"{CHECKS[0].answer}\n", done.stderr
