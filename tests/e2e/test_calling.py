"""docs/calling.md, run as it stands there: what it says is printed is what is printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/calling.md").read_text()


def steps(section: str) -> list[tuple[str, str]]:
    """The shell blocks of a section, each with the text block right after it (empty: there is none)."""
    text = DOCUMENT.split(f"## {section}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [
        (commands, shown if kind == "text" else "")
        for (first, commands), (kind, shown) in pairwise([*blocks, ("", "")])
        if first == "sh"
    ]


@pytest.fixture(scope="module")
def environment(running_dev: Mapping[str, str]) -> dict[str, str]:
    """With the demo loaded, the two variables that the document sets first."""
    loaded = subprocess.run(
        [sys.executable, "-m", "pemba", "demo"], env=dict(running_dev), capture_output=True, text=True, timeout=60
    )
    assert loaded.returncode == 0, loaded.stderr
    ready = json.loads((Path(running_dev["HOME"]) / ".local/share/pemba/dev/ready.json").read_text())
    path = f"{Path(sys.executable).parent}{os.pathsep}{running_dev['PATH']}"
    return {**running_dev, "PATH": path, "PEMBA_ENDPOINT": ready["grpc"], "PEMBA_KEY": ready["key"]}


def assert_prints(commands: str, shown: str, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-c", commands], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert re.fullmatch(re.escape(shown).replace(re.escape("..."), ".*"), done.stdout), done.stdout


def test_the_python_example_runs_as_it_stands(environment: dict[str, str]):
    [(commands, shown)] = steps("From Python")
    assert_prints(commands, shown, environment)


def test_the_python_example_ends_with_the_reason_of_a_refusal(environment: dict[str, str]):
    done = subprocess.run(
        [sys.executable, "examples/check_access.py", "hooli", "studio/nowhere", "nora"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("NOT_FOUND: ")


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="no grpcurl on PATH: its commands are not tried")
def test_the_grpcurl_commands_run_as_they_stand(environment: dict[str, str]):
    shown_steps = steps("From a shell, with grpcurl")
    assert len(shown_steps) == 2
    for commands, shown in shown_steps:
        assert_prints(commands, shown, environment)
