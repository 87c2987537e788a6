"""`pemba demo` against a running `pemba dev`."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pemba.cli.failure import ExitCode
from pemba.dev.demo import CHECKS

Pemba = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pemba(running_dev: Mapping[str, str]) -> Pemba:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pemba", *arguments],
            env=dict(running_dev),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def load(pemba: Pemba) -> dict[str, Any]:
    """What a run says it did."""
    done = pemba("demo", "--output", "json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def added(answer: dict[str, Any]) -> tuple[int, int]:
    """Workspaces and roles that a run added."""
    workspaces, roles = (sum(each[f"added_{what}"] for each in answer["tenants"]) for what in ("workspaces", "roles"))
    return workspaces, roles


def test_a_second_run_changes_nothing_and_says_so(pemba: Pemba):
    first, again = load(pemba), load(pemba)
    assert added(again) == (0, 0)
    assert [each["tenant_id"] for each in again["tenants"]] == [each["tenant_id"] for each in first["tenants"]]
    assert "nothing changed" in pemba("demo").stdout


def test_every_check_to_try_answers_as_it_is_printed(pemba: Pemba):
    lines = [line.strip() for line in pemba("demo").stdout.splitlines()]
    printed = [(line, lines[number + 1]) for number, line in enumerate(lines) if line.startswith("pemba check ")]
    assert len(printed) == len(CHECKS) > 2
    for command, shown in printed:
        answer, _, why = shown.partition(": ")
        done = pemba(*shlex.split(command)[1:])
        assert done.stdout.strip() == answer, f"{command}: {done.stdout}{done.stderr}"
        assert why in [check.why for check in CHECKS]


@pytest.mark.parametrize("time", ["first", "second"])
def test_what_was_taken_away_is_added_again(pemba: Pemba, time: str):
    load(pemba)
    gone = "studio/films/lighthouse/edit-suite"
    assert pemba("workspace", "delete", gone, "--tenant", "hooli").returncode == 0
    assert pemba("member", "remove", "workspace:studio/series", "user:gustav", "--tenant", "hooli").returncode == 0
    assert added(load(pemba)) == (1, 2)
    assert pemba("workspace", "get", gone, "--tenant", "hooli").returncode == 0


def test_a_change_that_makes_an_answer_another_is_told(pemba: Pemba):
    load(pemba)
    given = ("workspace:operations", "user:lena")
    assert pemba("member", "set", *given, "viewer", "--tenant", "globex").returncode == 0
    try:
        changed = [each for each in load(pemba)["checks"] if "changed" in each["why"]]
    finally:
        assert pemba("member", "remove", *given, "--tenant", "globex").returncode == 0
    [check] = changed
    assert "user:lena view workspace:operations " in check["command"]
    assert check["answer"] == "ALLOWED"


def test_a_tenant_that_is_somebody_elses_is_left_alone(pemba: Pemba):
    load(pemba)
    assert pemba("tenant", "update", "initech", "--name", "Somebody's").returncode == 0
    try:
        done = pemba("demo")
    finally:
        assert pemba("tenant", "update", "initech", "--name", "Initech Software").returncode == 0
    assert done.returncode == ExitCode.FAILED
    assert "initech is not the demo's" in done.stderr
