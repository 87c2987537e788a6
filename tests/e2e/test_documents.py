"""The sessions of README.md and docs/, run as they stand: what they say is printed is what is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.documents import MAKES, ROOT, SESSIONS, blocks_of, matches, steps_of

WITH_GRPCURL = "docs/calling.md"
_MARK = "-- next step --"


@pytest.fixture(scope="module")
def terminal(running_dev: Mapping[str, str]) -> dict[str, str]:
    """The environment of a terminal in which somebody follows a document."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{running_dev['PATH']}"
    return {**running_dev, "PATH": path, "PYTHONUNBUFFERED": "1"}  # a terminal shows lines as they come


@pytest.mark.parametrize("document", [each for each in SESSIONS if each != WITH_GRPCURL])
def test_every_command_of_a_document_prints_what_stands_there(document: str, terminal: dict[str, str]):
    follow(document, terminal)


def test_every_command_of_the_document_that_uses_grpcurl_does_so_too(terminal: dict[str, str], grpcurl_program: Path):
    follow(WITH_GRPCURL, {**terminal, "PATH": f"{terminal['PATH']}{os.pathsep}{grpcurl_program.parent}"})


def follow(document: str, terminal: Mapping[str, str]) -> None:
    """Run a document's steps, one after the other in one shell."""
    steps = steps_of(blocks_of((ROOT / document).read_text()))
    script = f"\necho '{_MARK}'\n".join(["exec 2>&1", *(step.commands for step in steps)])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env=dict(terminal),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
    )
    wrong = [
        f"{document}:{step.line}: {step.commands}should print\n{step.shown}\nand printed\n{printed}"
        for step, printed in zip(steps, done.stdout.split(f"{_MARK}\n")[1:], strict=True)
        if not matches(step.shown, printed)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("command", MAKES)
def test_the_two_commands_are_targets_of_the_makefile(command: str):
    assert command in (ROOT / "README.md").read_text()
    assert re.search(rf"^{command.removeprefix('make ')}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_python_example_ends_with_the_reason_of_a_refusal(terminal: dict[str, str]):
    ready = 'import json, os; print(json.load(open(os.path.expanduser("~/.local/share/pemba/dev/ready.json")))["{}"])'
    asked = "examples/check_access.py no-such-tenant studio nora"
    script = f"PEMBA_ENDPOINT=$(python -c '{ready.format('grpc')}') PEMBA_KEY=$(python -c '{ready.format('key')}')"
    done = subprocess.run(
        ["bash", "-c", f"{script} python {asked}"], cwd=ROOT, env=terminal, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith("NOT_FOUND: ")
