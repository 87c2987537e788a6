"""The lines of an import, each by itself: what it is about, and what is wrong with its shape.

A line is a JSON object with a `kind`, or one of a CSV file with the columns object, subject and role (a `member`).  It
is about a name, and about another name too where it is a relation between two: docs/importing.md has the fields.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO

from pemba.cli.importing.fields import Given, Line, Names
from pemba.errors import InvalidRequest

MAX_LINE_BYTES = 64 * 1024
_CSV_COLUMNS = ["object", "subject", "role"]


class Kind(StrEnum):
    """In the order in which they are made."""

    TENANT = "tenant"
    USER = "user"
    WORKSPACE = "workspace"
    GROUP = "group"
    GROUP_MEMBER = "group_member"
    MEMBER = "member"
    SHARE = "share"


@dataclass(frozen=True, slots=True)
class Record:
    """What a line says.

    `name`, `other`: the tenant's slug, a user's id, a workspace's path or a group's slug (or `external:ID`); of a
    group_member the group and the subject, of a member the object (`tenant`, `workspace:PATH`) and the subject
    (`user:ID`, `group:SLUG`), of a share the paths of the workspace and of the one that it is shared with.
    """

    file: str
    line: int
    kind: Kind
    name: str
    other: str
    given: Given
    """The fields besides, as far as they are there."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with a line; `field` is empty where it is the line itself, `line` 0 where it is no line's."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}{': ' if self.field else ''}{self.message}"


def read(file: BinaryIO, name: str) -> Iterator[Record | Complaint]:
    """What each line says, or all that is wrong with it; the name of a CSV file ends in `.csv`."""
    for number, found in _csv_objects(file) if name.lower().endswith(".csv") else _objects(file):
        if isinstance(found, str):
            yield Complaint(name, number, "", found)
        else:
            yield from _said(found, name, number)


def _lines(file: BinaryIO) -> Iterator[tuple[int, str, str]]:
    """Every line that is not blank: its number, its text, and what is wrong where there is none."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(MAX_LINE_BYTES)
            yield number, "", f"is longer than {MAX_LINE_BYTES} bytes"
            continue
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            yield number, "", "is not UTF-8"
        else:
            if text:
                yield number, text, ""


def _objects(file: BinaryIO) -> Iterator[tuple[int, dict[str, object] | str]]:
    for number, text, wrong in _lines(file):
        yield number, wrong or _object(text)


def _object(text: str) -> dict[str, object] | str:
    """What the text says, or what is wrong with it."""
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    return value if isinstance(value, dict) else "takes a JSON object"


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands there twice")
    return found


def _csv_objects(file: BinaryIO) -> Iterator[tuple[int, dict[str, object] | str]]:
    columns: list[str] = []
    for number, text, wrong in _lines(file):
        cells = _cells(text)
        if not columns and sorted(cells) != sorted(_CSV_COLUMNS):
            yield number, f"the first line takes the names of the columns: {','.join(_CSV_COLUMNS)}"
            return
        if not columns:
            columns = cells
        elif wrong or len(cells) != len(columns):
            yield number, wrong or f"takes one cell for each of {','.join(columns)}"
        else:
            yield number, {"kind": "member", **dict(zip(columns, cells, strict=True))}


def _cells(text: str) -> list[str]:
    """None of them where it is not CSV."""
    try:
        return [cell.strip() for cell in next(csv.reader([text], strict=True), [])]
    except csv.Error:
        return []


def _said(value: dict[str, object], file: str, number: int) -> Iterator[Record | Complaint]:
    kind = value.pop("kind", None)
    if kind not in list(Kind):
        takes = f"takes one of {', '.join(Kind)}"
        yield Complaint(file, number, "kind", takes if kind is not None else f"is missing: it {takes}")
        return
    try:
        with Line(value) as line:
            name, other = _NAMES[Kind(str(kind))](line)
    except InvalidRequest as error:
        yield from (Complaint(file, number, each.field, each.description) for each in error.violations)
    else:
        yield Record(file, number, Kind(str(kind)), name, other, line.given)


def _tenant(line: Line) -> Names:
    line.give("name", line.fields.name)
    line.give("first_admin", line.fields.user_id)
    return line.take("slug", line.fields.new_slug), ""


def _user(line: Line) -> Names:
    line.give("email", line.fields.optional_email)
    line.give("display_name", line.fields.display_name)
    return line.take("id", line.fields.user_id), ""


def _workspace(line: Line) -> Names:
    line.give("name", line.fields.name)
    return line.take("path", line.new_path), ""


def _group(line: Line) -> Names:
    line.give("name", line.fields.name)
    line.give("external_id", line.fields.external_id)
    return line.take("slug", line.fields.new_slug), ""


def _group_member(line: Line) -> Names:
    group, subject = line.take("group", line.group), line.take("subject", line.subject)
    line.flag("manager")
    if line.given.get("manager") and subject.startswith("group:"):
        line.fields.wrong("manager", "takes false for a group: users manage groups")
    return group, subject


def _member(line: Line) -> Names:
    object_, subject = line.take("object", line.object), line.take("subject", line.subject)
    line.take_role(object_, subject)
    return object_, subject


def _share(line: Line) -> Names:
    workspace, with_ = line.take("workspace", line.path), line.take("with_workspace", line.path)
    if workspace == with_:
        line.fields.wrong("with_workspace", "takes another workspace than the one that is shared")
    line.take_share_role()
    line.give("expire_time", line.time)
    return workspace, with_


_NAMES: dict[Kind, Callable[[Line], Names]] = {
    Kind.TENANT: _tenant,
    Kind.USER: _user,
    Kind.WORKSPACE: _workspace,
    Kind.GROUP: _group,
    Kind.GROUP_MEMBER: _group_member,
    Kind.MEMBER: _member,
    Kind.SHARE: _share,
}
