"""Promise 11: a forged, foreign or future token: refused at once.  A token with the relay stopped: UNAVAILABLE by the
deadline."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass

import grpc
import pytest

from pemba import tokens
from pemba.authorizer import waiting
from pemba.authorizer.waiting import Positions
from pemba.tokens import Signer
from pemba.v1 import tenants_pb2, workspaces_pb2
from tests.integration.relay.conftest import Relaying, Serving
from tests.promises.conftest import is_broken
from tests.stack import ROOT_SECRET, Calls, Refusal
from tests.truth import eventually, is_delivered, sql

AT_ONCE = 0.5
"""Seconds: a fraction of what a wait for a token takes."""
UNKNOWN_TENANT = "ten_01h455vb4pex5vsknk084sn02q"


@dataclass
class Made:
    """A server that lets two wait for a token, and a tenant of which everything is delivered."""

    calls: Calls
    root: workspaces_pb2.Workspace
    created: tenants_pb2.CreateTenantResponse
    signer: Signer


@pytest.fixture
async def made(serving: Serving, relaying: Relaying, database_url: str) -> AsyncIterator[Made]:
    """The relay is stopped."""
    async with serving(max_token_waiters=2) as calls:
        created = await calls.tenant("acme")
        async with relaying():
            await eventually(lambda: is_delivered(database_url, created.tenant.id))
        [installed] = await sql(database_url, "SELECT database_epoch FROM installation")
        signer = Signer((ROOT_SECRET,), installed["database_epoch"])
        yield Made(calls, created.root_workspace, created, signer)


async def refused(call: Awaitable[object]) -> tuple[Refusal, float]:
    """What it says, and after how many seconds."""
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return Refusal(error.value), time.monotonic() - began


def ask(made: Made, token: str, user: str = "bob", timeout: float = 10.0) -> Awaitable[bool]:
    return made.calls.may_view(made.root, user, token, timeout=timeout)


async def test_with_the_relay_stopped_a_token_is_unavailable_in_two_seconds_and_says_how_far_it_is(made: Made) -> None:
    token = await made.calls.grant(made.root, "bob")
    refusal, seconds = await refused(ask(made, token))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "TOKEN_NOT_YET_VISIBLE")
    assert (refusal.metadata["stream"], refusal.metadata["want"], refusal.metadata["have"]) == (
        made.created.tenant.id, "2", "1"
    )  # fmt: skip
    assert refusal.retry_seconds
    assert 1.5 < seconds < 2.5
    assert await ask(made, made.created.token, "alice"), "what is delivered is answered meanwhile"
    assert await ask(made, "") is False, "and without a token the state that is in force"


async def test_a_shorter_deadline_of_the_caller_holds(made: Made) -> None:
    token = await made.calls.grant(made.root, "bob")
    refusal, seconds = await refused(ask(made, token, timeout=0.4))
    assert refusal.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert refusal.reason in ("TOKEN_NOT_YET_VISIBLE", "")
    assert seconds < 0.4 + AT_ONCE


async def test_a_check_waits_for_its_token_and_is_answered_from_no_older_state(
    made: Made, relaying: Relaying, database_url: str
) -> None:
    granted = await made.calls.grant(made.root, "bob")
    waiting = asyncio.create_task(ask(made, granted))
    assert not (await asyncio.wait({waiting}, timeout=0.3))[0]
    async with relaying():
        assert await waiting is True
    revoked = await made.calls.revoke(made.root, "bob")
    assert await ask(made, granted) is True, "an older token asks for no more than that"
    waiting = asyncio.create_task(ask(made, revoked))
    assert not (await asyncio.wait({waiting}, timeout=0.3))[0]
    async with relaying():
        assert await waiting is False


async def test_only_so_many_may_wait_and_the_rest_is_told_so_at_once(made: Made) -> None:
    token = await made.calls.grant(made.root, "bob")
    outcomes = await asyncio.gather(*(refused(ask(made, token)) for _ in range(6)))
    told = [seconds for refusal, seconds in outcomes if refusal.reason == "OVERLOADED"]
    waited = [seconds for refusal, seconds in outcomes if refusal.reason == "TOKEN_NOT_YET_VISIBLE"]
    assert (len(told), len(waited)) == (4, 2)
    assert max(told) < AT_ONCE + 0.5 < min(waited)
    for refusal, _ in outcomes:
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert refusal.retry_seconds


async def test_who_gives_up_waiting_leaves_the_place_to_others(made: Made) -> None:
    token = await made.calls.grant(made.root, "bob")
    asking = {asyncio.create_task(refused(ask(made, token))) for _ in range(6)}
    told = [(await first)[0] for first in itertools.islice(asyncio.as_completed(asking), 4)]
    assert {refusal.reason for refusal in told} == {"OVERLOADED"}
    waiting = {task for task in asking if not task.done()}
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)

    async def free() -> bool:
        refusal, _ = await refused(ask(made, token))
        return refusal.reason == "TOKEN_NOT_YET_VISIBLE"

    await eventually(free)


def forged(made: Made) -> str:
    """A bit of the signature is another."""
    token = made.created.token
    return token[:-6] + ("A" if token[-6] != "A" else "B") + token[-5:]


def signed_by_another(made: Made) -> str:
    return Signer(("x" * 32,), made.signer.database_epoch).token({made.created.tenant.id: 1})


def not_a_token(made: Made) -> str:
    return "acme" + made.created.tenant.id


def of_the_future(made: Made) -> str:
    return made.signer.token({made.created.tenant.id: 1_000_000})


def of_another_database(made: Made) -> str:
    return Signer((ROOT_SECRET,), uuid.uuid4()).token({made.created.tenant.id: 1})


def of_a_tenant_that_was_lost(made: Made) -> str:
    return made.signer.token({UNKNOWN_TENANT: 1})


@pytest.mark.parametrize("make", [forged, signed_by_another, not_a_token])
async def test_a_token_that_is_not_ours_is_invalid_at_once(made: Made, make) -> None:
    refusal, seconds = await refused(ask(made, make(made), "alice"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TOKEN_INVALID")
    assert seconds < AT_ONCE


@pytest.mark.parametrize("make", [of_the_future, of_another_database, of_a_tenant_that_was_lost])
async def test_a_token_of_what_this_database_never_committed_is_lost_at_once(made: Made, make) -> None:
    refusal, seconds = await refused(ask(made, make(made), "alice"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_LOST")
    assert seconds < AT_ONCE


class AnyMac:
    """hmac, that finds every two equal."""

    digest = tokens.hmac.digest
    compare_digest = staticmethod(lambda *_: True)


async def test_it_is_broken_where_no_mac_is_compared(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "hmac", AnyMac)
    with is_broken("DID NOT RAISE"):
        await test_a_token_that_is_not_ours_is_invalid_at_once(made, forged)


@pytest.mark.parametrize("make", [of_the_future, of_a_tenant_that_was_lost])
async def test_it_is_broken_where_nobody_looks_at_the_heads(made: Made, monkeypatch: pytest.MonkeyPatch, make) -> None:
    monkeypatch.setattr(waiting, "_are_known", lambda *_: True)
    with is_broken():
        await test_a_token_of_what_this_database_never_committed_is_lost_at_once(made, make)


async def test_it_is_broken_where_nobody_waits_for_a_token(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Positions, "_reach", lambda self, wanted, _: self.now(wanted))
    with is_broken("DID NOT RAISE"):
        await test_with_the_relay_stopped_a_token_is_unavailable_in_two_seconds_and_says_how_far_it_is(made)
