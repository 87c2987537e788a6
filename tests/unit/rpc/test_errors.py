"""Every error of ours is one gRPC status, with details that any client can take."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo

from pemba.errors import (
    AlreadyExists,
    BackendError,
    ConcurrentUpdate,
    FieldViolation,
    Forbidden,
    InvalidRequest,
    NotFound,
    PembaError,
    PreconditionFailed,
    RateLimited,
    Reason,
    Rejected,
    Timeout,
    Unauthenticated,
    Unavailable,
    invalid_field,
)
from pemba.rpc.errors import CODES, code_of, public_error, to_status

CASES = [
    (invalid_field("slug", "is bad"), "INVALID_ARGUMENT", "INVALID_FIELD", BadRequest),
    (Unauthenticated(Reason.KEY_INVALID, "no"), "UNAUTHENTICATED", "KEY_INVALID", None),
    (Forbidden(Reason.ROLE_MISSING, "no"), "PERMISSION_DENIED", "ROLE_MISSING", None),
    (NotFound("tenant x"), "NOT_FOUND", "NOT_FOUND", None),
    (AlreadyExists(Reason.SLUG_TAKEN, "taken"), "ALREADY_EXISTS", "SLUG_TAKEN", None),
    (PreconditionFailed(Reason.CYCLE, "round"), "FAILED_PRECONDITION", "CYCLE", PreconditionFailure),
    (ConcurrentUpdate(Reason.ETAG_MISMATCH, "changed"), "ABORTED", "ETAG_MISMATCH", None),
    (RateLimited("slow down", 2.5), "RESOURCE_EXHAUSTED", "RATE_LIMITED", RetryInfo),
    (Unavailable(Reason.OVERLOADED, "busy"), "UNAVAILABLE", "OVERLOADED", RetryInfo),
    (Timeout(), "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", None),
    (Rejected(), "INTERNAL", "INTERNAL", None),
    (BackendError(Reason.INTERNAL, "no"), "INTERNAL", "INTERNAL", None),
]


@pytest.mark.parametrize(("error", "code", "reason", "detail"), CASES, ids=lambda value: str(value)[:40])
def test_an_error_has_its_code_its_reason_and_its_details(error, code, reason, detail):
    status = to_status(error, "r1")
    assert status.code == grpc.StatusCode[code].value[0]
    assert status.message == error.message
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, info.metadata["request_id"]) == (reason, "pemba", "r1")
    assert [d.TypeName() for d in status.details[1:]] == ([detail.DESCRIPTOR.full_name] if detail else [])


def test_every_error_that_can_be_raised_has_a_code():
    public = {kind for kind in _subclasses(PembaError) if kind.__module__ == "pemba.errors"}
    assert public == set(CODES) == {type(error) for error, *_ in CASES}
    assert not [kind for kind in _subclasses(PembaError) if CODES.keys().isdisjoint(kind.__mro__)]


def test_an_error_of_one_package_alone_has_the_code_of_what_it_derives_from():
    class Refused(Unavailable):
        pass

    assert code_of(Refused(Reason.OVERLOADED, "no")) is grpc.StatusCode.UNAVAILABLE


def test_the_fields_that_are_wrong_are_named_one_by_one():
    status = to_status(InvalidRequest([FieldViolation("a", "x"), FieldViolation("b", "y")]), "r1")
    bad = _unpacked(status.details[1], BadRequest())
    assert [(v.field, v.description) for v in bad.field_violations] == [("a", "x"), ("b", "y")]


def test_a_caller_is_told_when_to_come_back():
    status = to_status(RateLimited("slow down", 2.5), "r1")
    assert _unpacked(status.details[1], RetryInfo()).retry_delay.ToMilliseconds() == 2500


def test_a_failed_precondition_names_its_guard():
    status = to_status(PreconditionFailed(Reason.HAS_CHILDREN, "it has children"), "r1")
    violation = _unpacked(status.details[1], PreconditionFailure()).violations[0]
    assert (violation.type, violation.description) == ("HAS_CHILDREN", "it has children")


def test_metadata_of_the_error_reaches_the_caller_beside_the_request_id():
    status = to_status(PreconditionFailed(Reason.TOO_DEEP, "deep", {"max_depth": "20"}), "r1")
    assert dict(_unpacked(status.details[0], ErrorInfo()).metadata) == {"request_id": "r1", "max_depth": "20"}


@pytest.mark.parametrize("letter", ["a", "é", "\U0001f30b"])
def test_a_thousand_long_violations_still_fit_into_the_trailers_of_any_client(letter):
    violations = [FieldViolation(f"assignments[{i}].{letter * 500}", letter * 900) for i in range(1000)]
    error = InvalidRequest(violations, metadata={f"k{i}": letter * 500 for i in range(4)})
    status = to_status(error, "r" * 128)
    percent_encoded = 3 * len(status.message.encode())
    base64 = len(status.SerializeToString()) * 4 // 3
    assert percent_encoded + base64 < 16 * 1024 - 512


def test_the_cause_of_what_is_not_ours_stays_private():
    public = public_error(KeyError("password=hunter2"))
    assert isinstance(public, Rejected)
    assert "hunter2" not in to_status(public, "r1").SerializeToString().decode(errors="replace")


def test_a_deadline_that_passed_inside_is_a_deadline_for_the_caller():
    assert isinstance(public_error(TimeoutError()), Timeout)


def _subclasses(kind: type) -> set[type]:
    below = kind.__subclasses__()
    return set(below).union(*(_subclasses(k) for k in below)) if below else set()


def _unpacked(detail: Any, message):
    assert detail.Unpack(message)
    return message
