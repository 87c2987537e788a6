"""The rows of docs/promises.md and the tests that are named after them: `make promises`.

A test of the row K1 is called `test_k1_...`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

FOLDER = Path(__file__).parent
PROMISES = FOLDER.parents[1] / "docs/promises.md"

_ROW = re.compile(r"^\| ([A-Z]\d+) \| (.+) \|$", re.MULTILINE)
_TEST = re.compile(r"test_([a-z]\d+)_")


def rows(text: str) -> dict[str, str]:
    """Each row's promise."""
    return dict(_ROW.findall(text))


def tests(folder: Path) -> dict[str, list[str]]:
    """By row, the tests that are named after it, as pytest takes them."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (named := _TEST.match(node.name)):
                found.setdefault(named[1].upper(), []).append(f"{path.name}::{node.name}")
    return found


def complaints(promised: Mapping[str, str], tested: Mapping[str, Sequence[str]]) -> list[str]:
    """Rows without a test, and tests of no row."""
    missing = [f"{row}: no test is named test_{row.lower()}_..." for row in promised if row not in tested]
    return missing + [f"{names[0]}: there is no row {row}" for row, names in tested.items() if row not in promised]


def main() -> int:
    """Prints the table; 1 where a row or a test has no counterpart."""
    promised, tested = rows(PROMISES.read_text()), tests(FOLDER)
    table = Table("row", "promise", Column("tests", overflow="fold"), box=None, padding=(0, 2, 1, 0))
    for row, promise in promised.items():
        table.add_row(row, promise, "\n".join(tested.get(row, ["none"])))
    Console().print(table)
    found = complaints(promised, tested)
    sys.stderr.writelines(f"{line}\n" for line in found)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
