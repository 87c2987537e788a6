"""Between Pemba's types and those of SpiceDB's API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import grpc
from authzed.api.v1 import (
    CheckBulkPermissionsRequestItem,
    CheckPermissionResponse,
    Consistency,
    ObjectReference,
    Precondition,
    Relationship,
    RelationshipFilter,
    RelationshipUpdate,
    SubjectFilter,
    SubjectReference,
    ZedToken,
)
from google.protobuf.struct_pb2 import Struct

from pemba.errors import PembaError, Rejected
from pemba.model import ObjectRef, Operation, SubjectRef, Tuple, TupleOperation
from pemba.spicedb.errors import read_error, reason_in
from pemba.spicedb.questions import AtLeast, CheckQuestion, CheckResult, Decision, Freshness, FullyConsistent

_DECISIONS = {
    CheckPermissionResponse.PERMISSIONSHIP_HAS_PERMISSION: Decision.ALLOWED,
    CheckPermissionResponse.PERMISSIONSHIP_NO_PERMISSION: Decision.DENIED,
    CheckPermissionResponse.PERMISSIONSHIP_CONDITIONAL_PERMISSION: Decision.CONDITIONAL,
}
_FULLY_CONSISTENT = Consistency(fully_consistent=True)
_MINIMIZE_LATENCY = Consistency(minimize_latency=True)
_OPERATIONS = {
    Operation.TOUCH: RelationshipUpdate.OPERATION_TOUCH,
    Operation.DELETE: RelationshipUpdate.OPERATION_DELETE,
}


def to_consistency(freshness: Freshness) -> Consistency:
    if isinstance(freshness, AtLeast):
        return Consistency(at_least_as_fresh=ZedToken(token=freshness.zedtoken))
    return _FULLY_CONSISTENT if isinstance(freshness, FullyConsistent) else _MINIMIZE_LATENCY


def to_object(ref: ObjectRef) -> ObjectReference:
    return ObjectReference(object_type=ref.type, object_id=ref.id)


def to_subject(ref: SubjectRef) -> SubjectReference:
    return SubjectReference(
        object=ObjectReference(object_type=ref.type, object_id=ref.id), optional_relation=ref.relation
    )


def to_struct(values: Mapping[str, object]) -> Struct | None:
    if not values:
        return None
    struct = Struct()
    struct.update(cast("dict[str, Any]", values))
    return struct


def to_item(question: CheckQuestion) -> CheckBulkPermissionsRequestItem:
    return CheckBulkPermissionsRequestItem(
        resource=to_object(question.resource),
        permission=question.permission,
        subject=to_subject(question.subject),
        context=to_struct(question.context),
    )


def from_answer(answer: Any, checked_at: str) -> CheckResult:
    decision = _DECISIONS.get(answer.permissionship)
    if decision is None:
        raise Rejected("SpiceDB gave no decision")
    # SpiceDB names one as often as the caveat does.
    missing = tuple(dict.fromkeys(answer.partial_caveat_info.missing_required_context))
    return CheckResult(decision, missing, checked_at)


def from_pair(pair: Any, checked_at: str) -> CheckResult | PembaError:
    if pair.HasField("item"):
        return from_answer(pair.item, checked_at)
    return read_error(_CODES[pair.error.code], reason_in(pair.error), pair.error.message)


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def to_update(operation: TupleOperation) -> RelationshipUpdate:
    """A DELETE is of the tuple, whatever its expiration."""
    stored = operation.tuple
    relationship = Relationship(
        resource=to_object(stored.resource), relation=stored.relation, subject=to_subject(stored.subject)
    )
    if stored.expiration is not None and operation.operation is Operation.TOUCH:
        relationship.optional_expires_at.FromDatetime(stored.expiration)
    return RelationshipUpdate(operation=_OPERATIONS[operation.operation], relationship=relationship)


def to_precondition(stored: Tuple) -> Precondition:
    return Precondition(operation=Precondition.OPERATION_MUST_MATCH, filter=to_filter(stored))


def to_filter(stored: Tuple) -> RelationshipFilter:
    """What this tuple matches and no other does."""
    return RelationshipFilter(
        resource_type=stored.resource.type,
        optional_resource_id=stored.resource.id,
        optional_relation=stored.relation,
        optional_subject_filter=SubjectFilter(
            subject_type=stored.subject.type,
            optional_subject_id=stored.subject.id,
            optional_relation=SubjectFilter.RelationFilter(relation=stored.subject.relation),
        ),
    )


def to_absence(resource: ObjectRef, relation: str) -> Precondition:
    """That no tuple stands under that relation of the object."""
    return Precondition(
        operation=Precondition.OPERATION_MUST_NOT_MATCH,
        filter=RelationshipFilter(
            resource_type=resource.type, optional_resource_id=resource.id, optional_relation=relation
        ),
    )


def from_relationship(found: Any) -> Tuple:
    subject = found.subject
    return Tuple(
        ObjectRef(found.resource.object_type, found.resource.object_id),
        found.relation,
        SubjectRef(subject.object.object_type, subject.object.object_id, subject.optional_relation),
        _expiration(found),
    )


def _expiration(found: Any) -> datetime | None:
    if not found.HasField("optional_expires_at"):
        return None
    return cast("datetime", found.optional_expires_at.ToDatetime(UTC))
