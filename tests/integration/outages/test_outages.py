"""PostgreSQL or SpiceDB goes away under load and comes back: nothing acknowledged is lost, nothing is guessed."""

from __future__ import annotations

import asyncio
import itertools
import time

import grpc
import pytest

from tests.integration.outages.conftest import Whole
from tests.integration.outages.load import Counts, Load
from tests.stack import Refusal
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


async def test_spicedb_away_stops_no_change_and_answers_no_check(whole: Whole, how: str, outage_seconds: float) -> None:
    load = await under_load(whole)
    await asyncio.to_thread(whole.take_away, "spicedb", how)
    away = load.next_phase()
    await lasting(outage_seconds, lambda: away.changed >= 20 and len(away.refused_checks) >= 4)
    back = load.next_phase()
    await asyncio.to_thread(whole.bring_back, "spicedb", how)
    await going_on(back)
    assert away.checked == 0
    assert away.refused_changes == []
    assert_in_time(away)
    if how != "freeze":
        at_once = [refusal for refusal in away.refused_checks if refusal.reason == "SPICEDB_UNAVAILABLE"]
        assert at_once
    for refusal in away.refused_checks:
        assert_honest(refusal, "SPICEDB_UNAVAILABLE", "TOKEN_NOT_YET_VISIBLE")
    await require_nothing_lost(whole, load)


async def test_postgresql_away_answers_unavailable_and_comes_back_by_itself(
    whole: Whole, how: str, outage_seconds: float
) -> None:
    load = await under_load(whole)
    await asyncio.to_thread(whole.take_away, "postgres", how)
    away = load.next_phase()
    await lasting(outage_seconds, lambda: len(away.refused_changes) >= 3 and len(away.refused_checks) >= 2)
    back = load.next_phase()
    await asyncio.to_thread(whole.bring_back, "postgres", how)
    await going_on(back)
    assert (away.changed, away.checked) == (0, 0)
    assert_in_time(away)
    for refusal in (*away.refused_changes, *away.refused_checks):
        assert_honest(refusal, "POSTGRES_UNAVAILABLE", "OVERLOADED")
    await require_nothing_lost(whole, load)


async def under_load(whole: Whole) -> Load:
    created = await whole.calls.tenant(f"acme-{next(_numbers)}")
    assert await whole.calls.may_view(created.root_workspace, "alice", created.token)
    load = Load(whole.calls, created.root_workspace, CALL_SECONDS)
    await going_on(load.phase)
    return load


async def going_on(phase: Counts) -> None:
    """Changes are taken and checks are answered, soon."""

    async def answered() -> bool:
        return phase.changed >= 20 and phase.checked >= 20

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
