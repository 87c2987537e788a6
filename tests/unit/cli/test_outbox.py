"""`pemba outbox parked | retry | tail`: what they send, and what people and programs read."""

import json

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.v1 import operations_pb2 as pb
from pemba.v1 import tenants_pb2

TENANT_ID = "ten_01h455vb4pex5vsknk084sn02q"
TUPLE = f"workspace:{TENANT_ID}/ws_1#viewer@user:bob"
AT = Timestamp(seconds=1_700_000_000)
GET_ACME = tenants_pb2.GetTenantResponse(tenant=tenants_pb2.Tenant(id=TENANT_ID, slug="acme"))


def parked(slug="acme", effect=pb.PARKED_EFFECT_GRANTS_LESS, operation=pb.TUPLE_OPERATION_TOUCH):
    return pb.ParkedOperation(
        tenant_id=TENANT_ID,
        tenant_slug=slug,
        seq=7,
        since_seq=5,
        operation=operation,
        tuple=TUPLE,
        effect=effect,
        cause="UNKNOWN_DEFINITION",
        message="object definition `x` not found",
        park_time=AT,
    )


def test_what_is_parked_is_a_table_that_says_where_checks_are_closed(pemba, api):
    gone = parked("", pb.PARKED_EFFECT_RESTRICTS, pb.TUPLE_OPERATION_DELETE)
    api.answer("ListParkedOperations", pb.ListParkedOperationsResponse(parked_operations=[parked(), gone]))
    done = pemba("outbox", "parked")
    assert api.requests[0][1] == pb.ListParkedOperationsRequest(page_size=100)
    header, *rows = (line.split() for line in done.out.splitlines())
    assert header == ["TENANT", "ROW", "OPERATION", "TUPLE", "CHECKS", "CAUSE", "REFUSED"]
    assert rows[0][:6] == ["acme", "7", "touch", TUPLE, "open", "UNKNOWN_DEFINITION"]
    assert rows[1][:6] == [TENANT_ID, "7", "delete", TUPLE, "closed", "UNKNOWN_DEFINITION"]


def test_one_tenants_are_listed_by_its_slug_whatever_pemba_tenant_says(pemba, api, monkeypatch):
    monkeypatch.setenv("PEMBA_TENANT", "other")
    api.answer("GetTenant", GET_ACME)
    api.answer("ListParkedOperations", pb.ListParkedOperationsResponse(), pb.ListParkedOperationsResponse())
    pemba("outbox", "parked", "acme")
    assert api.requests[-1][1].tenant_id == TENANT_ID
    pemba("outbox", "parked")
    assert api.requests[-1][1].tenant_id == ""


def test_a_list_reads_all_pages_and_json_has_all_of_it(pemba, api):
    api.answer(
        "ListParkedOperations",
        pb.ListParkedOperationsResponse(parked_operations=[parked()], next_page_token="p2"),
        pb.ListParkedOperationsResponse(parked_operations=[parked()]),
    )
    answer = json.loads(pemba("outbox", "parked", "-o", "json").out)
    assert [each["message"] for each in answer["parked_operations"]] == ["object definition `x` not found"] * 2


@pytest.mark.parametrize(
    ("retried", "words"), [(0, "nothing is parked"), (3, "3 parked operations are repaired as the relay delivers it")]
)
def test_a_retry_says_what_comes_of_it(pemba, api, retried, words):
    api.answer("GetTenant", GET_ACME)
    api.answer("RetryParked", pb.RetryParkedResponse(retried=retried, token="t1"))
    done = pemba("outbox", "retry", "acme")
    assert api.requests[-1][1] == pb.RetryParkedRequest(tenant_id=TENANT_ID)
    assert (done.code, done.out.startswith(words)) == (0, True)


def test_the_token_of_a_retry_is_for_scripts(pemba, api):
    api.answer("RetryParked", pb.RetryParkedResponse(retried=3, token="t1"))
    assert pemba("outbox", "retry", "-o", "token").out == "t1\n"


COMMITTED = pb.TailOutboxResponse(
    event=pb.OUTBOX_EVENT_COMMITTED,
    tenant_id=TENANT_ID,
    seq=5,
    create_time=AT,
    request_id="r-1",
    operations=[pb.TailedOperation(operation=pb.TUPLE_OPERATION_TOUCH, tuple=TUPLE)],
)
DELIVERED = pb.TailOutboxResponse(event=pb.OUTBOX_EVENT_DELIVERED, tenant_id=TENANT_ID, seq=5)


def test_rows_are_followed_in_words_and_as_lines_of_json(pemba, api):
    api.answer("TailOutbox", iter([COMMITTED, DELIVERED]), iter([COMMITTED, DELIVERED]))
    done = pemba("outbox", "tail", "--since", "2023-11-14T22:13:20")
    assert api.requests[0][1] == pb.TailOutboxRequest(since=AT)
    assert done.out.splitlines() == [
        f"committed {TENANT_ID} 5 2023-11-14 22:13:20Z request r-1",
        f"    touch {TUPLE}",
        f"delivered {TENANT_ID} 5",
    ]
    lines = [json.loads(line) for line in pemba("outbox", "tail", TENANT_ID, "-o", "json").out.splitlines()]
    assert api.requests[1][1] == pb.TailOutboxRequest(tenant_id=TENANT_ID)
    assert [line["event"] for line in lines] == ["OUTBOX_EVENT_COMMITTED", "OUTBOX_EVENT_DELIVERED"]
    assert lines[0]["operations"] == [{"operation": "TUPLE_OPERATION_TOUCH", "tuple": TUPLE}]
