"""Revisions of SpiceDB on PostgreSQL, read from ZedTokens: which write had happened when another was made."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet


@dataclass(frozen=True)
class Revision:
    """A snapshot of PostgreSQL: every transaction below `xmin`, and those below `xmax` but for the ones in `running`.

    `txid` is the transaction that wrote it; 0 where it only looked.
    """

    txid: int
    xmin: int
    xmax: int
    running: frozenset[int] = frozenset()

    def sees(self, txid: int) -> bool:
        """Whether that transaction had committed; our own has."""
        return txid in (self.txid,) or txid < self.xmin or (txid < self.xmax and txid not in self.running)


def revision_of(zedtoken: str) -> Revision:
    """Raises ValueError for a token of another datastore than PostgreSQL."""
    token = _fields(base64.b64decode(zedtoken))
    named = _fields(token[3][0])[1][0]
    try:
        found = _fields(base64.b64decode(named, validate=True))
    except (ValueError, TypeError) as error:
        raise ValueError(f"not a revision of SpiceDB on PostgreSQL: {named!r}") from error
    xmin = found[1][0]
    return Revision(
        txid=found.get(4, [0])[0],
        xmin=xmin,
        xmax=xmin + found.get(2, [0])[0],
        running=frozenset(xmin + relative for relative in _varints(found.get(3, []))),
    )


def _fields(message: bytes) -> dict[int, list]:
    """The values of each field of a message whose definition is not at hand."""
    parsed = Empty()
    parsed.ParseFromString(message)
    found: dict[int, list] = {}
    for field in UnknownFieldSet(parsed):
        found.setdefault(field.field_number, []).append(field.data)
    return found


def _varints(values: list) -> list[int]:
    """Repeated numbers, packed or not."""
    found: list[int] = []
    for value in values:
        if isinstance(value, int):
            found.append(value)
            continue
        number = shift = 0
        for byte in value:
            number |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                found.append(number)
                number = shift = 0
    return found
