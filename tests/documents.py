"""The fenced blocks of the documents, and what of them is a session to be run as it stands.

    ```sh        commands; what they print stands in the `text` block right after, where there is one
    ```console   lines that begin with `$ ` are commands; what each prints stands below it
    ```python    a program, with what it prints in the `text` block right after; without one a part of an example
    ```text      only after one of these

In what is printed the width of columns does not count, `...` stands for anything, and a line of `...` for any lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
SESSIONS = ("README.md", "docs/concepts.md", "docs/calling.md", "docs/operating.md", "docs/importing.md")
"""The documents whose blocks are run (tests/e2e/test_documents.py), each from its first to its last in one shell."""

LANGUAGES = ("sh", "console", "python", "text")
SHOWS_OUTPUT = "text"

MAKES = {
    "make run": "tests/e2e/test_cli.py starts and stops it",
    "make test": "runs these tests",
}
"""Targets that take the terminal for themselves: what runs them is another test."""


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Step:
    """Commands as bash takes them, what they are to print, and the line on which they stand."""

    line: int
    commands: str
    shown: str


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a document."""
    found = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(text.count("\n", 0, match.start()) + 2, match[1], match[2]) for match in found]


def steps_of(blocks: list[Block]) -> list[Step]:
    """What of the blocks is to be run, in order."""
    steps: list[Step] = []
    for block, following in pairwise([*blocks, Block(0, "", "")]):
        shown = following.text if following.language == SHOWS_OUTPUT else ""
        if block.language == "sh" and not is_of_make(block):
            steps.append(Step(block.line, block.text, shown))
        elif block.language == "console":
            steps += _of_console(block)
        elif block.language == "python" and shown:
            steps.append(Step(block.line, f"python - <<'PYTHON'\n{block.text}PYTHON\n", shown))
    return steps


def is_of_make(block: Block) -> bool:
    """Whether it is made of `make run` and `make test` alone."""
    commands = [line.partition("#")[0].split() for line in block.text.splitlines()]
    return all(" ".join(words[:2]) in MAKES for words in commands)


def excerpts_of(blocks: list[Block]) -> list[str]:
    """The Python that is no program of its own."""
    following = [*blocks[1:], Block(0, "", "")]
    return [
        block.text
        for block, after in zip(blocks, following, strict=True)
        if block.language == "python" and after.language != SHOWS_OUTPUT
    ]


def _of_console(block: Block) -> list[Step]:
    before, *parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert not before, f"line {block.line}: a console block begins with `$ `"
    steps, line = [], block.line
    for part in parts:
        command, _, shown = part.partition("\n")
        steps.append(Step(line, command + "\n", shown))
        line += part.count("\n")
    return steps


def matches(shown: str, printed: str) -> bool:
    """Whether what is printed is what the document shows."""
    pattern = "".join(
        r"(?:.*\n)*" if line.strip() == "..." else r".*".join(map(re.escape, _words(line).split("..."))) + r"\n"
        for line in shown.splitlines()
    )
    return bool(re.fullmatch(pattern, "".join(f"{_words(line)}\n" for line in printed.splitlines())))


def _words(line: str) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return indent + " ".join(line.split())
