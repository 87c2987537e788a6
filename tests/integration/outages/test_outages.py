"""PostgreSQL or SpiceDB goes away under load and comes back: nothing acknowledged is lost, nothing is guessed."""

from __future__ import annotations

import asyncio
import itertools
import time

import grpc
import pytest

from tests.integration.outages.conftest import Whole
from tests.integration.outages.load import Counts, Load
from tests.stack import Refusal, calling
from tests.truth import eventually, require_truth, sql

CALL_SECONDS = 1.5
"""The callers' own deadline."""

_numbers = itertools.count(1)


@pytest.fixture(params=["stop", "kill", "freeze"])
def how(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[1.5, pytest.param(60, marks=[pytest.mark.long])], ids=["short", "a_minute"])
def outage_seconds(request: pytest.FixtureRequest) -> float:
    return request.param


async def test_spicedb_away_stops_no_change_and_answers_what_was_answered_and_nothing_else(
    whole: Whole, how: str, outage_seconds: float
) -> None:
    load = await under_load(whole)
    await asyncio.to_thread(whole.take_away, "spicedb", how)
    away = load.next_phase()
    await lasting(outage_seconds, lambda: away.changed >= 20 and len(away.refused_checks["new"]) >= 4)
    back = load.next_phase()
    await asyncio.to_thread(whole.bring_back, "spicedb", how)
    await going_on(back)
    assert away.checked["known"] >= 4
    assert (away.refused_checks["known"], away.checked["new"]) == ([], 0)
    assert away.refused_changes == []
    assert_in_time(away)
    if how != "freeze":
        at_once = [refusal for refusal in away.refused_checks["new"] if refusal.reason == "SPICEDB_UNAVAILABLE"]
        assert at_once
    for refusal in (*away.refused_checks["new"], *away.refused_checks["with_token"]):
        assert_honest(refusal, "SPICEDB_UNAVAILABLE", "TOKEN_NOT_YET_VISIBLE")
    await require_nothing_lost(whole, load)


async def test_postgresql_away_stops_changes_and_no_check_without_a_token_and_comes_back_by_itself(
    whole: Whole, how: str
) -> None:
    load = await under_load(whole)
    await asyncio.to_thread(whole.take_away, "postgres", how)
    away = load.next_phase()
    await lasting(1.5, lambda: len(away.refused_changes) >= 3 and min(away.checked[k] for k in ("known", "new")) >= 20)
    back = load.next_phase()
    await asyncio.to_thread(whole.bring_back, "postgres", how)
    await going_on(back)
    assert away.changed == 0
    assert (away.refused_checks["known"], away.refused_checks["new"]) == ([], [])
    assert_in_time(away)
    for refusal in (*away.refused_changes, *away.refused_checks["with_token"]):
        assert_honest(refusal, "POSTGRES_UNAVAILABLE", "OVERLOADED", "TOKEN_NOT_YET_VISIBLE")
    await require_nothing_lost(whole, load)


@pytest.mark.parametrize("seconds", [1, pytest.param(60, marks=[pytest.mark.long])])
async def test_without_postgresql_checks_fail_closed_after_the_time_that_is_set(
    whole: Whole, how: str, seconds: float
) -> None:
    """From then on every check is refused, whether it was answered a moment ago or not, until PostgreSQL is back."""
    created = await whole.calls.tenant(f"acme-{next(_numbers)}")
    root = created.root_workspace
    serve = await whole.running.serve(outage_seconds=seconds)
    async with calling(serve.settings["PEMBA_GRPC_LISTEN"]) as calls:
        assert await calls.may_view(root, "alice", created.token)
        await asyncio.to_thread(whole.take_away, "postgres", how)
        began = time.monotonic()
        assert await calls.may_view(root, "alice", timeout=CALL_SECONDS)

        async def refused() -> Refusal | None:
            try:
                assert await calls.may_view(root, "alice", timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                return Refusal(error)
            return None

        first = await eventually(refused, seconds + 10)
        assert time.monotonic() - began > seconds - 0.5
        for refusal in (first, await refused(), await refused()):
            assert refusal is not None
            assert_honest(refusal, "POSTGRES_UNAVAILABLE")
        await asyncio.to_thread(whole.bring_back, "postgres", how)

        async def answered() -> bool:
            return await refused() is None

        await eventually(answered, 15)
    await whole.running.stop(serve)


async def under_load(whole: Whole) -> Load:
    created, quiet = [await whole.calls.tenant(f"acme-{next(_numbers)}") for _ in range(2)]
    for tenant in (created, quiet):
        assert await whole.calls.may_view(tenant.root_workspace, "alice", tenant.token)
    load = Load(whole.calls, created.root_workspace, quiet.root_workspace, CALL_SECONDS)
    await going_on(load.phase)
    return load


async def going_on(phase: Counts) -> None:
    """Changes are taken and checks are answered, soon."""

    async def answered() -> bool:
        return phase.changed >= 20 and min(phase.checked[kind] for kind in ("known", "new", "with_token")) >= 5

    await eventually(answered, 15)


async def lasting(seconds: float, seen_enough) -> None:
    began = time.monotonic()

    async def over() -> bool:
        return time.monotonic() - began >= seconds and seen_enough()

    await eventually(over, seconds + 15)


def assert_in_time(away: Counts) -> None:
    assert away.slowest < CALL_SECONDS + 2, "a deadline holds whoever is away"


def assert_honest(refusal: Refusal, *reasons: str) -> None:
    """UNAVAILABLE, why, and when to come back; the caller's deadline may pass first, on a busy machine anywhere."""
    if refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return
    assert refusal.code is grpc.StatusCode.UNAVAILABLE, refusal
    assert refusal.reason in reasons, refusal
    assert refusal.retry_seconds, refusal


async def require_nothing_lost(whole: Whole, load: Load) -> None:
    """Every request has one outcome, and records, outbox and SpiceDB agree about it."""
    await load.stop()
    assert load.wrong == []
    tenant_id = load.root.tenant_id
    remembered = await sql(whole.url, "SELECT request_id FROM idempotency WHERE tenant_id = $1", tenant_id)
    acknowledged = {mutation.request_id for mutation in load.mutations if mutation.token is not None}
    assert acknowledged <= {row["request_id"] for row in remembered}
    await load.settle()
    head = await require_truth(whole.url, whole.store, tenant_id)
    assert head == 1 + len(load.mutations), "a row for the tenant, and one for each request"
    members = await sql(whole.url, "SELECT user_id FROM memberships WHERE workspace_id = $1", load.root.id)
    assert {row["user_id"] for row in members} == load.users
    whole.require_all_up()
