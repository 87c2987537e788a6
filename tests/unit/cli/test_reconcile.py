"""`pemba reconcile`: what it sends, what people and programs read, and its exit codes."""

import json

import pytest

from pemba.v1 import operations_pb2 as pb
from pemba.v1 import tenants_pb2

TENANT_ID = "ten_01h455vb4pex5vsknk084sn02q"


def finding(kind, relation, subject, on="acme/eng", subject_name="", object_id="ws_1"):
    type_, _, id_ = subject.partition(":")
    return pb.ReconcileResponse(
        finding=pb.ReconcileFinding(
            kind=kind,
            tuple=f"workspace:{TENANT_ID}/{object_id}#{relation}@{subject}",
            tenant_id=TENANT_ID,
            tenant_slug="acme",
            object={"type": "workspace", "id": object_id},
            object_name=on,
            relation=relation,
            subject={"type": type_, "id": id_},
            subject_name=subject_name,
        )
    )


def summary(**counts):
    return pb.ReconcileResponse(summary=pb.ReconcileSummary(**counts), token="t1")


STORE = pb.ReconcileResponse(progress=pb.ReconcileProgress(step="store", done=9))
GAIN = finding(pb.DRIFT_KIND_MISSING, "viewer", "user:bob")
LOSS = finding(pb.DRIFT_KIND_TOO_MUCH, "admin", "user:eve")


def answer(api, *messages):
    api.answer("Reconcile", iter(messages))


def test_no_drift_is_exit_code_0_and_nothing_is_asked_to_be_written(pemba, api):
    answer(api, STORE, summary(stored=9, projected=9))
    done = pemba("reconcile")
    assert (done.code, api.requests) == (0, [("Reconcile", pb.ReconcileRequest())])
    assert done.out == "SpiceDB holds 9 tuples, the records stand for 9.\nNo drift.\n"


def test_drift_is_told_in_words_and_is_exit_code_1(pemba, api):
    below = finding(pb.DRIFT_KIND_MISSING, "parent", "workspace:ws_0", subject_name="acme/")
    owned = finding(pb.DRIFT_KIND_TOO_MUCH, "tenant", f"tenant:{TENANT_ID}", subject_name="acme")
    unknown = finding(pb.DRIFT_KIND_TOO_MUCH, "admin", "user:eve", on="", object_id="ws_9")
    foreign = pb.ReconcileResponse(
        finding=pb.ReconcileFinding(kind=pb.DRIFT_KIND_FOREIGN, tuple="workspace:x#admin@user:eve")
    )
    answer(
        api, GAIN, LOSS, below, owned, unknown, foreign,
        summary(stored=9, projected=9, missing=2, too_much=3, foreign=1, undelivered=7),
    )  # fmt: skip
    done = pemba("reconcile")
    assert done.code == 1
    for line in (
        "2 missing in SpiceDB:",
        "  user:bob gains viewer on workspace:acme/eng",
        "  workspace:acme/eng comes below workspace:acme/",
        "3 too much in SpiceDB:",
        "  user:eve loses admin on workspace:acme/eng",
        "  the admins of tenant:acme no longer own workspace:acme/eng",
        "  user:eve loses admin on workspace:ws_9 of acme",
        "  workspace:x#admin@user:eve",
        "7 differ because their change is not delivered yet: no drift.",
        "5 tuples differ. `pemba reconcile --apply` repairs them.",
    ):
        assert line in done.out.splitlines()


def test_a_hundred_of_a_kind_are_shown_and_the_rest_is_counted(pemba, api):
    answer(api, *[GAIN] * 130, summary(missing=130))
    done = pemba("reconcile")
    assert done.out.count("user:bob gains") == 100
    assert "  ... and 30 more; --output json has all of them" in done.out.splitlines()


def test_json_is_a_line_for_each_finding_and_one_for_the_summary(pemba, api):
    answer(api, STORE, *[GAIN] * 130, LOSS, summary(missing=130, too_much=1))
    done = pemba("reconcile", "-o", "json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 1
    assert [next(iter(line)) for line in lines] == ["finding"] * 131 + ["summary"]
    assert (lines[0]["finding"]["kind"], lines[0]["finding"]["subject"]["id"]) == ("DRIFT_KIND_MISSING", "bob")
    assert (lines[-1]["summary"]["missing"], lines[-1]["token"]) == ("130", "t1")


def test_apply_waits_by_default_and_all_repaired_is_exit_code_0(pemba, api):
    answer(api, GAIN, LOSS, summary(missing=1, too_much=1, repaired=2))
    done = pemba("reconcile", "--apply", "--max-deletions", "0")
    assert api.requests[0][1] == pb.ReconcileRequest(apply=True, wait=True, max_deletions=0)
    assert (done.code, done.out.splitlines()[-1]) == (0, "2 of 2 tuples are repaired.")
    api.answer("GetTenant", tenants_pb2.GetTenantResponse(tenant=tenants_pb2.Tenant(id=TENANT_ID)))
    answer(api, summary())
    pemba("reconcile", "--apply", "--no-wait", "--tenant", "acme")
    assert api.requests[-1][1] == pb.ReconcileRequest(tenant_id=TENANT_ID, apply=True)


def test_deletions_that_are_withheld_are_exit_code_1_and_it_says_what_to_do(pemba, api):
    answer(api, summary(missing=1, too_much=50, repaired=1, deletions_withheld=True, max_deletions=10))
    done = pemba("reconcile", "--apply")
    assert done.code == 1
    assert "50 tuples are too much, and 10 may be deleted" in done.out
    assert "`--max-deletions 50`" in done.out


@pytest.mark.parametrize("option", [("--no-wait",), ("--max-deletions", "5")])
def test_options_of_apply_go_with_it(pemba, api, option):
    done = pemba("reconcile", *option)
    assert (done.code, api.requests) == (2, [])
    assert "go with --apply" in done.err


def test_a_stream_that_breaks_is_a_failure_and_not_a_report(pemba, api):
    def broken():
        yield GAIN
        raise RuntimeError

    api.answer("Reconcile", broken())
    done = pemba("reconcile")
    assert (done.code, done.out) == (3, "")
