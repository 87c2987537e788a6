"""`pemba bench` as a person starts it, cut short: it measures everything and looks at the answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pemba.bench.run import WORKS

pytestmark = pytest.mark.timeout(300)

LIES = "import pemba.bench.dataset as d; d.DataSet.allows = lambda *_: False; from pemba.cli.main import main; main()"


@pytest.fixture
def environment(ghz_program: Path, spicedb_program: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ghz_program.parent), str(spicedb_program.parent), os.environ["PATH"]])
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PEMBA_")}
    return {**inherited, "PATH": path}


def run(*command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def test_a_quick_run_has_figures_for_every_work_and_no_wrong_answer(environment: dict[str, str], tmp_path: Path):
    files = ["--json", str(tmp_path / "bench.json"), "--markdown", str(tmp_path / "bench.md")]
    done = run("-m", "pemba", "bench", "--quick", *files, environment=environment)

    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads((tmp_path / "bench.json").read_text())
    assert [row["work"] for row in said["rows"]] == list(WORKS)
    for row in said["rows"]:
        for side in row["sides"].values():
            assert side["median"]["rate"] > 0, row
            assert set(side["median"]["statuses"]) <= {"OK"}
        assert all(goal["value"] > 0 for goal in row["goals"])
    assert said["versions"].keys() >= {"spicedb", "ghz", "postgres", "pemba"}
    for name in WORKS:
        assert f"| {name} |" in (tmp_path / "bench.md").read_text()


def test_answers_that_are_not_what_the_records_say_fail_the_run(environment: dict[str, str]):
    done = run("-c", LIES, "bench", "--quick", "--only", "hot", "--seconds", "0.1", environment=environment)

    assert done.returncode == 3, done.stdout + done.stderr
    assert "pemba: Question(" in done.stdout
    assert "spoilt" in done.stdout
