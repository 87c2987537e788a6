"""Lookups both ways, at a revision that can be named again.

SpiceDB's own cursors are not used: with a limit its LookupResources gives an object again on later pages (once for
every path that leads to it), a cursor of a store that was replaced is answered with nothing, and LookupSubjects has
none.  A revision pinned by `ExactlyAt` is refused where it is no longer kept or belongs to another store.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from authzed.api.v1 import Consistency, LookupResourcesRequest, LookupSubjectsRequest, ZedToken
from authzed.api.v1.permission_service_pb2 import (
    LOOKUP_PERMISSIONSHIP_CONDITIONAL_PERMISSION,
    LOOKUP_PERMISSIONSHIP_HAS_PERMISSION,
)
from authzed.api.v1.permission_service_pb2_grpc import PermissionsServiceStub

from pemba.errors import PreconditionFailed, Reason, Rejected
from pemba.model import ObjectRef, SubjectRef
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.conversion import to_consistency, to_object, to_struct, to_subject
from pemba.spicedb.errors import translated
from pemba.spicedb.questions import Decision, Freshness

WILDCARD = "*"


@dataclass(frozen=True, slots=True)
class ExactlyAt:
    """At the revision of this ZedToken and no other."""

    zedtoken: str


@dataclass(frozen=True, slots=True)
class Found:
    """One object or subject, by SpiceDB's id; `looked_up_at` is the ZedToken of the revision that was asked."""

    id: str
    decision: Decision
    missing_context: tuple[str, ...]
    looked_up_at: str


_DECISIONS = {
    LOOKUP_PERMISSIONSHIP_HAS_PERMISSION: Decision.ALLOWED,
    LOOKUP_PERMISSIONSHIP_CONDITIONAL_PERMISSION: Decision.CONDITIONAL,
}


async def resources(
    spicedb: SpiceDB,
    type_: str,
    permission: str,
    subject: SubjectRef,
    context: Mapping[str, object],
    at: Freshness | ExactlyAt,
    timeout: float,
) -> AsyncGenerator[Found]:
    """The objects on which the subject has the permission, in no order; complete only if it ends without an error.

    Raises as SpiceDB.check, and PreconditionFailed (CURSOR_EXPIRED) where an exact revision is no longer kept.
    """
    request = LookupResourcesRequest(
        consistency=_at(at),
        resource_object_type=type_,
        permission=permission,
        subject=to_subject(subject),
        context=to_struct(context),
    )
    stub: Any = PermissionsServiceStub(spicedb.channel)
    call = stub.LookupResources(request, timeout=timeout, metadata=spicedb.metadata)
    try:
        with translated(), _revisions_expire(at):
            async for found in call:
                yield _found(found, found.resource_object_id, found.looked_up_at.token)
    finally:
        call.cancel()


async def subjects(
    spicedb: SpiceDB,
    resource: ObjectRef,
    permission: str,
    subject: tuple[str, str],
    context: Mapping[str, object],
    at: Freshness | ExactlyAt,
    timeout: float,
) -> AsyncGenerator[Found]:
    """The subjects of that (type, relation) that have the permission on the object; as `resources`.

    Who has it by a wildcard alone is not listed.
    """
    request = LookupSubjectsRequest(
        consistency=_at(at),
        resource=to_object(resource),
        permission=permission,
        subject_object_type=subject[0],
        optional_subject_relation=subject[1],
        context=to_struct(context),
    )
    stub: Any = PermissionsServiceStub(spicedb.channel)
    call = stub.LookupSubjects(request, timeout=timeout, metadata=spicedb.metadata)
    try:
        with translated(), _revisions_expire(at):
            async for found in call:
                if found.subject.subject_object_id != WILDCARD:
                    yield _found(found.subject, found.subject.subject_object_id, found.looked_up_at.token)
    finally:
        call.cancel()


def _at(at: Freshness | ExactlyAt) -> Consistency:
    if isinstance(at, ExactlyAt):
        return Consistency(at_exact_snapshot=ZedToken(token=at.zedtoken))
    return to_consistency(at)


def _found(found: Any, id_: str, looked_up_at: str) -> Found:
    decision = _DECISIONS.get(found.permissionship)
    if decision is None:
        raise Rejected("SpiceDB gave no decision")
    missing = tuple(dict.fromkeys(found.partial_caveat_info.missing_required_context))
    return Found(id_, decision, missing, looked_up_at)


@contextmanager
def _revisions_expire(at: Freshness | ExactlyAt) -> Iterator[None]:
    """SpiceDB gives no reason for a revision that it does not have, and UNKNOWN for one of another store."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        text = error.details() or ""
        gone = error.code() is grpc.StatusCode.OUT_OF_RANGE or "revision" in text or "different datastore" in text
        if isinstance(at, ExactlyAt) and gone:
            raise PreconditionFailed(
                Reason.CURSOR_EXPIRED, "what the cursor goes on from is no longer kept; start over without a cursor"
            ) from error
        raise
