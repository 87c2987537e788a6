"""Checks: the question as it is asked, and the answer as it is told."""

import grpc
import pytest

from pemba.authorizer import AllAnswer, Answer, BatchAnswer, Consistency, Decision, Question
from pemba.errors import NotFound, Reason
from pemba.model import ObjectRef as ModelObject
from pemba.model import SubjectRef as ModelSubject
from pemba.v1.errors_pb2 import ERROR_REASON_TENANT_SUSPENDED, ERROR_REASON_UNSPECIFIED, ERROR_REASON_USER_SUSPENDED
from pemba.v1.permissions_pb2 import (
    DECISION_ALLOWED,
    DECISION_CONDITIONAL,
    DECISION_DENIED,
    DECISION_UNSPECIFIED,
    BatchCheckItem,
    BatchCheckRequest,
    CheckAllRequest,
    CheckRequest,
)
from pemba.v1.types_pb2 import Consistency as ConsistencyMessage
from pemba.v1.types_pb2 import ObjectRef, SubjectRef

TENANT_ID = "ten_01kafa7q0ve8x9m1t2b3c4d5e6"
OTHER_TENANT_ID = "ten_01kafa7q0ve8x9m1t2b3c4d5e7"
WORKSPACE_ID = "ws_01kafa7q0ve8x9m1t2b3c4d5e6"
RESOURCE = ObjectRef(type="workspace", id=WORKSPACE_ID)
SUBJECT = SubjectRef(type="user", id="alice")
QUESTION = Question(ModelObject("workspace", WORKSPACE_ID), "view", ModelSubject("user", "alice"))


def check(**changes):
    return CheckRequest(
        **{"tenant_id": TENANT_ID, "resource": RESOURCE, "permission": "view", "subject": SUBJECT} | changes
    )


def item(**changes):
    return BatchCheckItem(**{"resource": RESOURCE, "permission": "view", "subject": SUBJECT} | changes)


async def test_a_question_reaches_the_authorizer_as_it_was_asked(running):
    response = await running.call("Check", check(context={"day": 7, "tags": ["a"]}))
    _, tenant_id, question, consistency, _ = running.authorizer.calls[0].arguments
    assert (tenant_id, question.resource, question.permission) == (TENANT_ID, QUESTION.resource, "view")
    assert (question.subject, question.context) == (QUESTION.subject, {"day": 7.0, "tags": ["a"]})
    assert consistency == Consistency()
    assert (response.decision, response.token) == (DECISION_ALLOWED, "t1")


@pytest.mark.parametrize(
    ("answer", "decision", "reason", "missing"),
    [
        (Answer(Decision.DENIED, None, (), "t"), DECISION_DENIED, ERROR_REASON_UNSPECIFIED, []),
        (Answer(Decision.DENIED, Reason.TENANT_SUSPENDED, (), "t"), DECISION_DENIED, ERROR_REASON_TENANT_SUSPENDED, []),
        (Answer(Decision.CONDITIONAL, None, ("day",), "t"), DECISION_CONDITIONAL, ERROR_REASON_UNSPECIFIED, ["day"]),
    ],
)
async def test_an_answer_is_told_as_it_is(running, answer, decision, reason, missing):
    running.authorizer.answers["check"] = answer
    response = await running.call("Check", check())
    assert (response.decision, response.reason, list(response.missing_context)) == (decision, reason, missing)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (ConsistencyMessage(at_least_as_fresh="t1"), Consistency(at_least_as_fresh="t1")),
        (ConsistencyMessage(at_least_as_fresh=""), Consistency()),
        (ConsistencyMessage(fully_consistent=True), Consistency(fully_consistent=True)),
        (ConsistencyMessage(minimize_latency=True), Consistency(minimize_latency=True)),
    ],
)
async def test_the_freshness_that_is_asked_for_is_handed_on(running, asked, wanted):
    await running.call("Check", check(consistency=asked))
    assert running.authorizer.calls[0].arguments[3] == wanted


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tenant_id": ""}, "tenant_id"),
        ({"tenant_id": "acme"}, "tenant_id"),
        ({"resource": ObjectRef()}, "resource.type"),
        ({"resource": ObjectRef(type="document", id="1")}, "resource.type"),
        ({"resource": ObjectRef(type="workspace", id="root")}, "resource.id"),
        ({"permission": ""}, "permission"),
        ({"permission": "fly"}, "permission"),
        ({"subject": SubjectRef(type="robot", id="1")}, "subject.type"),
        ({"context": {"text": "x" * 5000}}, "context"),
        ({"context": {"far": float("inf")}}, "context"),
    ],
    ids=str,
)
async def test_a_question_that_cannot_be_asked_is_refused_by_field(running, changes, field):
    refusal = await running.refusal("Check", check(**changes))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert field in refusal.violations
    assert not running.authorizer.calls


async def test_everything_that_is_wrong_with_a_question_is_said_at_once(running):
    refusal = await running.refusal("Check", CheckRequest())
    assert set(refusal.violations) == {"tenant_id", "resource.type", "subject.type"}


async def test_each_item_of_a_batch_has_its_own_result_in_order(running):
    running.authorizer.answers["batch_check"] = BatchAnswer(
        (Answer(Decision.ALLOWED, None, (), "t"), NotFound(f"tenant {OTHER_TENANT_ID}")), "t9"
    )
    request = BatchCheckRequest(
        tenant_id=TENANT_ID, items=[item(), item(permission="fly"), item(tenant_id=OTHER_TENANT_ID)]
    )
    response = await running.call("BatchCheck", request)
    _, items, _, _ = running.authorizer.calls[0].arguments
    assert items == [(TENANT_ID, QUESTION), (OTHER_TENANT_ID, QUESTION)]
    codes = [result.error.code for result in response.results]
    assert codes == [0, grpc.StatusCode.INVALID_ARGUMENT.value[0], grpc.StatusCode.NOT_FOUND.value[0]]
    decisions = [result.decision for result in response.results]
    assert decisions == [DECISION_ALLOWED, DECISION_UNSPECIFIED, DECISION_UNSPECIFIED]
    assert response.token == "t9"


async def test_a_batch_of_nothing_but_errors_asks_nothing(running):
    response = await running.call("BatchCheck", BatchCheckRequest(items=[item()]))
    assert "tenant_id" in response.results[0].error.message
    assert (response.token, running.authorizer.calls) == ("", [])


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_takes_1_to_1000_items(running, count):
    refusal = await running.refusal("BatchCheck", BatchCheckRequest(tenant_id=TENANT_ID, items=[item()] * count))
    assert refusal.violations == {"items": "takes 1 to 1000"}


async def test_all_permissions_of_an_object_are_asked_about_at_once(running):
    denied = Answer(Decision.DENIED, None, (), "t1")
    conditional = Answer(Decision.CONDITIONAL, None, ("day",), "t1")
    answers = {"administer": denied, "view": conditional}
    running.authorizer.answers["check_all"] = AllAnswer(answers, Reason.USER_SUSPENDED, "t1")
    request = CheckAllRequest(tenant_id=TENANT_ID, resource=ObjectRef(type="tenant", id=TENANT_ID), subject=SUBJECT)
    response = await running.call("CheckAll", request)
    _, tenant_id, questions, consistency, _ = running.authorizer.calls[0].arguments
    assert (tenant_id, consistency) == (TENANT_ID, Consistency())
    assert [(q.resource.type, q.permission) for q in questions] == [("tenant", "administer"), ("tenant", "view")]
    told = [(p.permission, p.decision, list(p.missing_context)) for p in response.permissions]
    assert told == [("administer", DECISION_DENIED, []), ("view", DECISION_CONDITIONAL, ["day"])]
    assert (response.reason, response.token) == (ERROR_REASON_USER_SUSPENDED, "t1")


async def test_all_permissions_of_an_unknown_type_are_refused(running):
    request = CheckAllRequest(tenant_id=TENANT_ID, resource=ObjectRef(type="folder", id="f"), subject=SUBJECT)
    refusal = await running.refusal("CheckAll", request)
    assert list(refusal.violations) == ["resource.type"]
    assert not running.authorizer.calls
