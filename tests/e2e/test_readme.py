"""README's first check, run as it stands there: what it says it prints is what it prints."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SECTION = "A first check"

_MARK = "-- next block --"


def steps() -> list[tuple[str, str]]:
    """The shell blocks of the section, each with the text block that shows what it prints."""
    section = re.search(rf"^## {SECTION}\n(.*?)^## ", README, re.DOTALL | re.MULTILINE)
    assert section is not None
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", section[1], re.DOTALL | re.MULTILINE)
    return [(text, shown) for (kind, text), (_, shown) in pairwise([*blocks, ("", "")]) if kind == "sh"]


def matches(shown: str, printed: str) -> bool:
    """Whether the lines are the same but for the width of columns; `...` stands for anything."""
    patterns = [r".*".join(map(re.escape, _words(line).split("..."))) for line in shown.splitlines()]
    lines = [_words(line) for line in printed.splitlines()]
    return len(patterns) == len(lines) and all(map(re.fullmatch, patterns, lines))


def _words(line: str) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return indent + " ".join(line.split())


def test_each_step_of_the_first_check_shows_what_it_prints():
    assert len(steps()) == 3
    assert all(shown for _, shown in steps())


def test_the_words_of_a_line_count_and_its_spaces_do_not():
    assert matches("ID      NAME\nws_...  a b\n", "ID     NAME   \nws_01h a  b\n")
    assert not matches("ALLOWED\n", "DENIED\n")
    assert not matches("ALLOWED\n", "ALLOWED\nALLOWED\n")


@pytest.mark.parametrize("command", ["make run", "make test"])
def test_the_two_commands_are_targets_of_the_makefile(command):
    assert command in README
    assert re.search(rf"^{command.removeprefix('make ')}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_first_check_runs_as_it_stands(running_dev: Mapping[str, str]):
    script = f"\necho '{_MARK}'\n".join(commands for commands, _ in steps())
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env=dict(running_dev),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    for (commands, shown), printed in zip(steps(), done.stdout.split(f"{_MARK}\n"), strict=True):
        assert matches(shown, printed), f"{commands}\nshould print\n{shown}\nand printed\n{printed}"
