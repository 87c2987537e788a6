"""Child processes, with a few lines of Python for a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pemba.dev.process import Server, StartError, run

ENDLESS = "import sys, time; print('ready', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ENDLESS}"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {ENDLESS!r}]).wait()"


class Script(Server):
    """Ready when its log says `ready`."""

    def __init__(self, source: str, log: Path) -> None:
        super().__init__("script", log)
        self.source = source

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.source]

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def is_ready(self) -> bool:
        return self.log.exists() and "ready" in self.log.read_text()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "script.log"


@pytest.fixture
def script(log: Path) -> Iterator[Script]:
    script = Script(ENDLESS, log)
    yield script
    script.kill()


def test_a_server_runs_from_start_to_stop(script: Script) -> None:
    script.start()
    pid = script.pid
    assert pid is not None

    script.stop()

    assert script.pid is None
    assert not psutil.pid_exists(pid)


def test_starting_what_runs_changes_nothing(script: Script) -> None:
    script.start()
    pid = script.pid

    script.start()

    assert script.pid == pid


def test_one_that_dies_while_it_starts_is_an_error_with_its_last_words(script: Script) -> None:
    script.source = "import sys; sys.exit('no such database')"

    with pytest.raises(StartError, match=r"script \(exit code 1\)(.|\n)*no such database"):
        script.start()


def test_one_that_is_not_ready_in_time_is_killed_and_an_error(script: Script) -> None:
    script.source = "import time; time.sleep(600)"
    script.start_seconds = 0.1

    with pytest.raises(StartError, match="not ready after 0 s"):
        script.start()
    assert script.pid is None


def test_one_that_does_not_stop_is_killed(script: Script) -> None:
    script.source = DEAF
    script.stop_seconds = 0.1
    script.start()

    script.stop()

    assert script.pid is None
    assert "SIGKILL" in script.last_words()


def test_a_kill_takes_along_what_the_server_started(script: Script) -> None:
    script.source = PARENT
    script.start()
    assert script.pid is not None
    children = psutil.Process(script.pid).children(recursive=True)
    assert children

    script.kill()

    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_the_log_is_private_and_last_words_are_of_this_run_alone(script: Script, log: Path) -> None:
    log.parent.mkdir()
    log.write_text("long ago\n")
    log.chmod(0o600)
    script.start()
    script.stop()

    assert "long ago" not in script.last_words()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_program_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot run /nowhere/program: No such file"):
        run("a step", ["/nowhere/program"], log=tmp_path / "log", environment={})


def test_a_step_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="a step took longer than 0 s"):
        run("a step", [sys.executable, "-c", ENDLESS], log=tmp_path / "log", environment={}, seconds=0.1)
