"""Pemba's permission schema: its text, what SpiceDB has of it, and writing it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from authzed.api.v1.permission_service_pb2 import Consistency
from authzed.api.v1.schema_service_pb2 import (
    DiffSchemaRequest,
    ReadSchemaRequest,
    ReflectionSchemaDiff,
    ReflectionTypeReference,
    WriteSchemaRequest,
)
from authzed.api.v1.schema_service_pb2_grpc import SchemaServiceStub

from pemba.errors import PreconditionFailed, Reason
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.errors import WriteFailed, WriteFailure, translated, translated_write

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """One difference between SpiceDB's schema and a text: what writing the text would do."""

    kind: str
    """As DiffSchema names it: `relation_added`, `definition_removed` ..."""
    name: str
    """The definition, or `definition#relation`, with the subject type where that is what differs."""

    @property
    def adds(self) -> bool:
        """Whether SpiceDB lacks something that the text has."""
        return self.kind.endswith("_added")

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')}: {self.name}"


def schema_text() -> str:
    """schema.zed: of the installed package, or of the checkout that this is."""
    packaged = resources.files("pemba.spicedb").joinpath("schema.zed")
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[3] / "schema.zed").read_text(encoding="utf-8")


def digest(text: str) -> str:
    """Names a version: SHA-256 in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


async def changes(spicedb: SpiceDB, text: str) -> list[SchemaChange]:
    """What writing `text` would change; empty where SpiceDB has just that.

    Raises Unavailable, and PreconditionFailed (SCHEMA_MISMATCH) where SpiceDB cannot make sense of `text`.
    """
    request = DiffSchemaRequest(consistency=Consistency(fully_consistent=True), comparison_schema=text)
    with translated():
        response = await _stub(spicedb).DiffSchema(request, timeout=TIMEOUT_SECONDS, metadata=spicedb.metadata)
    return [_change(diff) for diff in response.diffs]


async def missing(spicedb: SpiceDB) -> list[SchemaChange]:
    """What this build needs and SpiceDB lacks: definitions, relations, their subject types, permissions.

    More than that is fine, and so is another expression of a permission: a newer build's schema must not stop an
    older one that still runs beside it.  Raises Unavailable.
    """
    return [change for change in await changes(spicedb, schema_text()) if change.adds]


async def write(spicedb: SpiceDB, text: str) -> str:
    """Replace SpiceDB's schema by `text`; the ZedToken of the write.

    Raises PreconditionFailed where SpiceDB refuses it (it names what live tuples still use), WriteFailed otherwise.
    """
    try:
        with translated_write():
            response = await _stub(spicedb).WriteSchema(
                WriteSchemaRequest(schema=text), timeout=TIMEOUT_SECONDS, metadata=spicedb.metadata
            )
    except WriteFailed as error:
        if error.kind in (WriteFailure.OPERATION, WriteFailure.REFUSED):
            raise PreconditionFailed(
                Reason.SCHEMA_MISMATCH, error.message.replace("the write", "the schema", 1)
            ) from error
        raise
    return str(response.written_at.token)


_STRING_OR_COMMENT = re.compile(r""""(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|/\*.*?\*/|//[^\n]*""", re.DOTALL)
_CAVEAT = re.compile(r"\bcaveat\s+[\w/]+\s*\([^()]*\)\s*\{[^{}]*\}")
_BEYOND_THIS_READING = re.compile(r"""\b[rRbB]{1,2}["']|\"{3}|'{3}""")
_SUBTRACTS_OR_UNREAD = re.compile(r"""-(?!>)|\.\s*all\s*\(|["']|\bcaveat\b""")


def may_subtract(text: str) -> bool:
    """Whether more tuples could ever give anybody less; True as well where this simple reading cannot tell."""
    if _BEYOND_THIS_READING.search(text):
        return True
    return _SUBTRACTS_OR_UNREAD.search(_CAVEAT.sub("", _STRING_OR_COMMENT.sub(" ", text))) is not None


async def read(spicedb: SpiceDB, timeout: float) -> str:
    """SpiceDB's schema as it spells it.  Raises Unavailable, Timeout, Rejected."""
    with translated():
        response = await _stub(spicedb).ReadSchema(ReadSchemaRequest(), timeout=timeout, metadata=spicedb.metadata)
    return str(response.schema_text)


def _stub(spicedb: SpiceDB) -> Any:
    return SchemaServiceStub(spicedb.channel)


def _change(diff: ReflectionSchemaDiff) -> SchemaChange:
    kind = diff.WhichOneof("diff") or "unknown"
    return SchemaChange(kind, _name(getattr(diff, kind)))


def _name(changed: Any) -> str:
    """Of a definition, caveat, relation or permission, or of a relation with one of its subject types."""
    if hasattr(changed, "changed_subject_type"):
        return f"{_name(changed.relation)}: {_type(changed.changed_subject_type)}"
    parent = getattr(changed, "parent_definition_name", "") or getattr(changed, "parent_caveat_name", "")
    return f"{parent}#{changed.name}" if parent else str(changed.name)


def _type(reference: ReflectionTypeReference) -> str:
    name = str(reference.subject_definition_name)
    if reference.is_public_wildcard:
        name += ":*"
    if reference.optional_relation_name:
        name += f"#{reference.optional_relation_name}"
    if reference.optional_caveat_name:
        name += f" with {reference.optional_caveat_name}"
    return name
