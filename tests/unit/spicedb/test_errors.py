"""What SpiceDB's statuses become: by reason first, by code only where there is none."""

from __future__ import annotations

import grpc
import pytest
from authzed.api.v1 import ErrorReason

from pemba.errors import BackendError, PreconditionFailed, Reason, Rejected, Timeout, Unavailable
from pemba.spicedb.errors import WriteFailure, read_error, write_failure

Code = grpc.StatusCode


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_its_meaning_for_a_write_and_for_a_question(code: grpc.StatusCode) -> None:
    assert write_failure(code, "") in WriteFailure
    assert isinstance(read_error(code, "", ""), BackendError)


@pytest.mark.parametrize("reason", [name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()])  # noqa: SIM118 - no dict
def test_every_reason_of_spicedb_has_its_meaning_for_a_write(reason: str) -> None:
    assert write_failure(Code.FAILED_PRECONDITION, reason) in WriteFailure


@pytest.mark.parametrize(
    "code",
    [
        Code.UNAVAILABLE,
        Code.DEADLINE_EXCEEDED,
        Code.ABORTED,
        Code.CANCELLED,
        Code.INTERNAL,
        Code.UNKNOWN,
        Code.RESOURCE_EXHAUSTED,
    ],
)
def test_what_may_have_landed_is_uncertain_and_never_an_operations_fault(code: grpc.StatusCode) -> None:
    assert write_failure(code, "") is WriteFailure.UNCERTAIN


def test_one_code_means_different_things_by_its_reason() -> None:
    code = Code.FAILED_PRECONDITION
    assert write_failure(code, "WRITE_OR_DELETE_PRECONDITION_FAILURE") is WriteFailure.PRECONDITION
    assert write_failure(code, "UNKNOWN_DEFINITION") is WriteFailure.OPERATION
    assert write_failure(Code.INVALID_ARGUMENT, "TOO_MANY_UPDATES_IN_REQUEST") is WriteFailure.SETTING
    assert write_failure(Code.INVALID_ARGUMENT, "INVALID_SUBJECT_TYPE") is WriteFailure.OPERATION
    assert write_failure(Code.ABORTED, "SERIALIZATION_FAILURE") is WriteFailure.UNCERTAIN


@pytest.mark.parametrize("code", [Code.FAILED_PRECONDITION, Code.OUT_OF_RANGE, Code.NOT_FOUND, Code.ALREADY_EXISTS])
@pytest.mark.parametrize("reason", ["", "SOMETHING_NEW"])
def test_what_nothing_says_is_an_operations_fault_is_none(code: grpc.StatusCode, reason: str) -> None:
    assert write_failure(code, reason) is WriteFailure.REFUSED


def test_a_failed_question_says_whether_to_come_back() -> None:
    away = read_error(Code.UNAVAILABLE, "", "x")
    assert isinstance(away, Unavailable)
    assert away.reason is Reason.SPICEDB_UNAVAILABLE
    assert isinstance(read_error(Code.DEADLINE_EXCEEDED, "", "x"), Timeout)
    unknown = read_error(Code.FAILED_PRECONDITION, "UNKNOWN_DEFINITION", "x")
    assert isinstance(unknown, Unavailable)
    assert unknown.reason is Reason.SCHEMA_MISMATCH
    assert isinstance(read_error(Code.RESOURCE_EXHAUSTED, "MAXIMUM_DEPTH_EXCEEDED", "x"), PreconditionFailed)
    assert isinstance(read_error(Code.PERMISSION_DENIED, "", "x"), Rejected)


def test_a_wrong_key_and_a_wrong_schema_are_told_to_the_one_who_can_put_them_right() -> None:
    assert "PEMBA_SPICEDB_KEY" in str(read_error(Code.PERMISSION_DENIED, "", "invalid preshared key"))
    parse = read_error(Code.INVALID_ARGUMENT, "SCHEMA_PARSE_ERROR", "parse error in line 7")
    assert isinstance(parse, PreconditionFailed)
    assert "line 7" in parse.message


def test_a_reason_that_says_come_back_is_unavailable_whatever_the_code() -> None:
    assert isinstance(read_error(Code.FAILED_PRECONDITION, "DATASTORE_NOT_MIGRATED", "x"), Unavailable)
