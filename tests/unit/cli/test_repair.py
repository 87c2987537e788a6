"""`pemba repair` without servers: what stops it, and what its parts say."""

import json

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.cli import repairs
from pemba.cli.diagnosis import Finding as Diagnosed
from pemba.cli.diagnosis import Level
from pemba.cli.repairs import IN_WORDS, Repair
from pemba.model import TenantId
from pemba.storage.invariants import Broken, Finding
from pemba.v1 import operations_pb2 as pb

PARKED = pb.ListParkedOperationsResponse(
    parked_operations=[pb.ParkedOperation(tenant_id="ten_1", tuple="a:b#c@d:e", park_time=Timestamp(seconds=1))]
)


@pytest.fixture
def well(monkeypatch):
    """Settings and servers are well, and so are the records."""
    monkeypatch.setattr(repairs, "examine", lambda *_: ([], []))
    monkeypatch.setattr(repairs, "records", lambda *_, **__: [])


def summary(**counts):
    return iter([pb.ReconcileResponse(summary=pb.ReconcileSummary(**counts))])


def found(done):
    return [(each["state"], each["part"]) for each in json.loads(done.out)["found"]]


def test_where_a_server_cannot_be_reached_nothing_else_is_tried(pemba):
    done = pemba("repair", "--endpoint", "127.0.0.1:1", "--apply", "-o", "json", "--timeout", "1")
    assert done.code == 1
    assert ("decide", "API") in found(done)
    assert {part for _, part in found(done)} <= {"API", "key", "PostgreSQL", "SpiceDB"}


def test_nothing_to_repair_is_exit_code_0(pemba, api, well):
    api.answer("ListParkedOperations", pb.ListParkedOperationsResponse())
    api.answer("Reconcile", summary(stored=3, projected=3))
    done = pemba("repair")
    assert (done.code, done.out) == (0, "nothing to repair\n")


def test_a_look_sends_nothing_that_changes(pemba, api, well):
    api.answer("ListParkedOperations", PARKED)
    api.answer("Reconcile", summary(missing=2, too_much=1))
    done = pemba("repair", "-o", "json")
    assert (done.code, found(done)) == (1, [("to repair", "parked"), ("to repair", "drift")])
    assert [method for method, _ in api.requests] == ["ListParkedOperations", "Reconcile"]
    assert api.requests[-1][1] == pb.ReconcileRequest()


def test_apply_tries_what_is_parked_again_and_waits_for_the_repair_of_drift(pemba, api, well):
    api.answer("ListParkedOperations", PARKED)
    api.answer("RetryParked", pb.RetryParkedResponse(retried=1))
    api.answer("Reconcile", summary(missing=2, repaired=2))
    done = pemba("repair", "--apply", "--max-deletions", "7", "-o", "json")
    assert (done.code, found(done)) == (0, [("repaired", "parked"), ("repaired", "drift")])
    assert api.requests[-1][1] == pb.ReconcileRequest(apply=True, wait=True, max_deletions=7)


def test_deletions_that_are_too_many_are_for_a_person_to_decide(pemba, api, well):
    api.answer("ListParkedOperations", pb.ListParkedOperationsResponse())
    api.answer(
        "Reconcile",
        summary(missing=1, too_much=50, foreign=2, repaired=1, deletions_withheld=True, max_deletions=10),
    )
    done = pemba("repair", "--apply")
    assert done.code == 1
    assert "--max-deletions 50" in done.out
    assert done.out.splitlines()[-2:] == ["1 repaired", "2 left for you to decide"]


def test_without_a_schema_in_spicedb_drift_is_not_looked_for(pemba, api, monkeypatch, well):
    lacks = Diagnosed(Level.FAILURE, "SpiceDB", "lacks 3 parts of this build's schema", "run `pemba schema apply`")
    monkeypatch.setattr(repairs, "examine", lambda *_: ([], [lacks]))
    api.answer("ListParkedOperations", pb.ListParkedOperationsResponse())
    done = pemba("repair", "--apply", "-o", "json")
    assert (done.code, found(done)) == (1, [("decide", "SpiceDB")])


def test_max_deletions_goes_with_apply(pemba):
    done = pemba("repair", "--max-deletions", "5")
    assert done.code == 2
    assert "goes with --apply" in done.err


@pytest.mark.parametrize("broken", Broken)
async def test_every_finding_has_words_and_a_remedy(broken: Broken):
    finding = Finding(broken, TenantId("ten_1"), "acme", "workspace:ws_1", "user:bob")
    repair: Repair = await repairs._one(None, finding, apply=False)  # type: ignore[arg-type]  # nothing is repaired
    assert repair.message.endswith("(tenant acme)")
    assert repair.remedy
    assert "{" not in repair.message + repair.remedy
    assert set(IN_WORDS) == set(Broken)
