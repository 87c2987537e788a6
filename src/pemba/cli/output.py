"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp
    from rich.console import RenderableType

    from pemba.v1.types_pb2 import Preview


class Output(StrEnum):
    """How an answer is printed; field names of JSON are the protos' and stay."""

    TABLE = "table"
    JSON = "json"
    TOKEN = "token"  # noqa: S105 - prints the consistency token and nothing else


_WIDTH = 10_000
_COLOURED = ("DECISION", "ROLE", "STATUS")
_COLOURS = {
    "ALLOWED": "green",
    "DENIED": "red",
    "CONDITIONAL": "yellow",
    "owner": "magenta",
    "admin": "cyan",
    "member": "blue",
    "suspended": "red",
}

Row = Mapping[str, str]
"""One line of a table: column to text."""


def show(output: Output, answer: Message, rows: Sequence[Row], columns: Sequence[str] = ()) -> None:
    """Print `answer`: as `rows` for people, whole as JSON, or its token alone.

    `columns` names the columns where there may be no row.
    """
    if output is Output.JSON:
        print_json(as_dict(answer))
    elif output is Output.TOKEN:
        print(getattr(answer, "token", ""))
    else:
        print_table(rows, columns)
    more: str = getattr(answer, "next_page_token", "")
    if output is Output.TABLE and more:
        print("there is more; --limit N lists up to N", file=sys.stderr)
    if output is Output.TABLE and "preview" in answer.DESCRIPTOR.fields_by_name and answer.HasField("preview"):
        _show_preview(answer.preview)  # type: ignore[attr-defined]  # the descriptor says that it has one


def _show_preview(preview: Preview) -> None:
    print("nothing was changed; it would be:", file=sys.stderr)
    for record in preview.records:
        print(f"  {record.object}", file=sys.stderr)
    for sign, tuples in (("+", preview.tuples_added), ("-", preview.tuples_removed)):
        for each in tuples:
            print(f"  {sign} {each}", file=sys.stderr)
    if preview.tuples_omitted:
        print(f"  and {preview.tuples_omitted} tuples more", file=sys.stderr)


def as_dict(answer: Message) -> dict[str, object]:
    """The message with the protos' own field names, empty fields included."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def print_json(value: object) -> None:
    """`value` as indented JSON on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Row], columns: Sequence[str] = ()) -> None:
    """`rows` under a line of column names; `columns` names them where there may be no row."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns or (list(rows[0]) if rows else []):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(coloured(cell) if column in _COLOURED else cell for column, cell in row.items()))
    print_rich(table)


def coloured(text: str) -> RenderableType:
    """A decision, a role or a status, with the colour of its first word."""
    from rich.text import Text

    return Text(text, style=_COLOURS.get(text.partition(" ")[0], ""))


def print_rich(renderable: RenderableType) -> None:
    """Anything of Rich's on stdout, in colours where that is a terminal that has them (and NO_COLOR is not set).

    Lines are as long as they are, so that an id can be copied; a narrow terminal wraps them itself.
    """
    from rich.console import Console

    console = Console(file=sys.stdout, width=_WIDTH, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(renderable)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def moment(time: Timestamp) -> str:
    """A time to the second, in UTC."""
    return time.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
