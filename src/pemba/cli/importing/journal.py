"""The SQLite file of an import: its lines, what each came to, and what the tenant had before and has now."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pemba.cli.failure import CallFailed, Problem
from pemba.cli.importing.fields import Given
from pemba.cli.importing.lines import Kind, Record

BEFORE, NOW = "before", "now"
"""When a tenant was read."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- id, etag: the record's, once it is there; done: -1 (nothing to do), 0, 1 (answered), 2 (undone).
CREATE TABLE IF NOT EXISTS records (
    n INTEGER PRIMARY KEY, file TEXT NOT NULL, line INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
    other TEXT NOT NULL, given TEXT NOT NULL, action TEXT NOT NULL DEFAULT '', place INTEGER NOT NULL DEFAULT 0,
    batch INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0, id TEXT NOT NULL DEFAULT '',
    etag TEXT NOT NULL DEFAULT '', undo TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS records_name ON records (kind, name, other);
CREATE INDEX IF NOT EXISTS records_to_do ON records (kind, done, place, n);
CREATE INDEX IF NOT EXISTS records_other ON records (other);
CREATE INDEX IF NOT EXISTS records_email ON records (lower(json_extract(given, '$.email'))) WHERE kind = 'user';
CREATE INDEX IF NOT EXISTS records_external ON records (json_extract(given, '$.external_id')) WHERE kind = 'group';
CREATE TABLE IF NOT EXISTS present (
    at TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, other TEXT NOT NULL, has TEXT NOT NULL,
    id TEXT NOT NULL, etag TEXT NOT NULL, PRIMARY KEY (at, kind, name, other)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS present_id ON present (at, kind, id);
CREATE INDEX IF NOT EXISTS present_other ON present (at, kind, other);
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the import, with what it came to."""

    n: int
    file: str
    line: int
    kind: Kind
    name: str
    other: str
    given: Given
    action: str
    """`make`, `change` or `leave`."""
    batch: int
    id: str
    etag: str

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def text(self) -> str:
        return in_words(self.kind, self.name, self.other)


def in_words(kind: str, name: str, other: str) -> str:
    """`workspace eng/backend`, `member workspace:/ user:alice`, `share ops eng`; the root is `/`."""
    first = "workspace:/" if name == "workspace:" else name or "/"
    second = other or ("/" if kind == Kind.SHARE else "")
    return " ".join(filter(None, (kind, first, second)))


COLUMNS = "r.n, r.file, r.line, r.kind, r.name, r.other, r.given, r.action, r.batch, r.id, r.etag"


class Journal:
    """One such file.  One process has it at a time."""

    def __init__(self, path: Path) -> None:
        """Raises CallFailed where another process has it, or it is no such file."""
        self.path = path
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb"):  # it holds emails
            self._db = sqlite3.connect(path, timeout=1)
        self._db.create_function("covers", 2, _covers, deterministic=True)
        self._db.create_function("parent", 1, lambda path: path.rpartition("/")[0], deterministic=True)
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._db.close()
            what = "is in use by another import" if "locked" in str(error) else f"is no journal of an import: {error}"
            raise CallFailed(Problem("FAILED_PRECONDITION", f"{path} {what}")) from error

    def close(self) -> None:
        self._db.close()

    def rows(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        return iter(self._db.execute(sql, values))

    def one(self, sql: str, *values: object) -> Any:
        """The first cell of the first row; None without a row."""
        row = self._db.execute(sql, values).fetchone()
        return None if row is None else row[0]

    def run(self, sql: str, *values: object) -> int:
        """How many rows it changed; `commit` keeps it."""
        return self._db.execute(sql, values).rowcount

    def commit(self) -> None:
        self._db.commit()

    def get(self, name: str) -> str:
        """What was noted under a name; empty for nothing."""
        return self.one("SELECT value FROM meta WHERE name = ?", name) or ""

    def note(self, **values: str) -> None:
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def add(self, record: Record) -> None:
        self.run(
            "INSERT INTO records (file, line, kind, name, other, given) VALUES (?, ?, ?, ?, ?, ?)",
            *(record.file, record.line, record.kind, record.name, record.other, _json(record.given)),
        )

    def records(self, where: str, *values: object, limit: int = 500) -> list[Row]:
        """At most `limit` lines; `where` may join and order."""
        found = self._db.execute(f"SELECT {COLUMNS} FROM records r {where} LIMIT {limit}", values)
        return [row_of(each) for each in found]

    def stream(self, where: str, *values: object) -> Iterator[Row]:
        """Lines, while none is changed."""
        return map(row_of, self._db.execute(f"SELECT {COLUMNS} FROM records r {where}", values))

    def forget(self, at: str) -> None:
        """What was read of the tenant at that time."""
        self.run("DELETE FROM present WHERE at = ?", at)

    def saw(self, at: str, kind: Kind, name: str, other: str, has: Given, id_: str = "", etag: str = "") -> None:
        """A record of the tenant."""
        self.run(
            "INSERT OR REPLACE INTO present VALUES (?, ?, ?, ?, ?, ?, ?)", at, kind, name, other, _json(has), id_, etag
        )

    def name_of(self, at: str, kind: Kind, id_: str) -> str | None:
        """The path of a workspace, or the slug of a group, that was seen."""
        name: str | None = self.one("SELECT name FROM present WHERE at = ? AND kind = ? AND id = ?", at, kind, id_)
        return name

    def id_of(self, kind: Kind, name: str) -> str:
        """The id of a workspace or a group that was there before, or was made."""
        return self._of("id", kind, name)

    def etag_of(self, kind: Kind, name: str) -> str:
        """As `id_of`."""
        return self._of("etag", kind, name)

    def _of(self, column: str, kind: Kind, name: str) -> str:
        made = self.one(f"SELECT {column} FROM records WHERE kind = ? AND name = ? AND other = ''", kind, name)
        there = f"SELECT {column} FROM present WHERE at = ? AND kind = ? AND name = ? AND other = ''"
        return str(made or self.one(there, BEFORE, kind, name) or "")

    def actions(self) -> dict[str, dict[str, int]]:
        """How many of a kind are to make, to change, to leave."""
        counts: dict[str, dict[str, int]] = {}
        for kind, action, count in self.rows("SELECT kind, action, count(*) FROM records GROUP BY kind, action"):
            counts.setdefault(kind, {"make": 0, "change": 0, "leave": 0})[action] = count
        return {kind: counts[kind] for kind in Kind if kind in counts}

    def counts(self, at: str) -> dict[str, int]:
        """How many of a kind the tenant had then; users are those that the files name."""
        found = dict(self.rows("SELECT kind, count(*) FROM present WHERE at = ? GROUP BY kind", at))
        return {kind: found.get(kind, 0) for kind in Kind}


def row_of(cells: Iterable[Any]) -> Row:
    n, file, line, kind, name, other, given, action, batch, id_, etag = cells
    return Row(n, file, line, Kind(kind), name, other, json.loads(given), action, batch, id_, etag)


def _json(value: Given) -> str:
    return json.dumps(value, ensure_ascii=False)


def _covers(has: str, given: str) -> bool:
    """Whether what is there is what is given, as far as it is given."""
    held = json.loads(has)
    return all(held.get(field) == value for field, value in json.loads(given).items())
