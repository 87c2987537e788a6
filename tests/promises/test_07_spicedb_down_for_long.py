"""Promise 7: SpiceDB down for long: nothing parked, all drained after.

The other half, that parked operations come true by the schema that brings them: test_parked_answers.py.
"""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from pemba.model import Role
from pemba.projection import TYPES
from pemba.relay import fence
from pemba.relay.fence import Fence
from pemba.relay.lane import Lane
from pemba.relay.relay import Relay
from pemba.spicedb import errors
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.errors import WriteFailure, translated_write
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import Relaying, delivers_all
from tests.promises.conftest import is_broken
from tests.proxy import Proxy
from tests.truth import eventually, require_truth, sql

SECONDS = 3.0


class NoAnswers(SpiceDB):
    """While `away` it answers nothing that writes a tenant's tuples, and everything else."""

    away = False

    async def write(self, operations: Any, **named: Any) -> str:
        if NoAnswers.away and any(each.tuple.resource.type in TYPES for each in operations):
            with translated_write():
                raise grpc.aio.AioRpcError(
                    grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "no answer"
                )
        return await super().write(operations, **named)


async def take_away(how: str, proxy: Proxy) -> None:
    NoAnswers.away = how == "to deliveries alone"
    if how == "refused":
        await proxy.refuse()
    elif how == "silent":
        proxy.freeze()


async def bring_back(how: str, proxy: Proxy) -> None:
    NoAnswers.away = False
    proxy.thaw()
    if how == "refused":
        await proxy.accept()


def lanes(relay: Relay) -> list[Lane]:
    return list(relay._leases.lanes.values())


async def down(
    how: str, parts: Parts, relaying: Relaying, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    """While changes of three tenants are due, for many times as long as a write may take."""
    made = [await parts.tenant() for _ in range(3)]
    async with relaying(NoAnswers, rpc_seconds=0.3, poll_max_seconds=0.1) as relay:
        await eventually(lambda: delivers_all(relay))
        for tenant, _ in made:
            await require_truth(database_url, store, tenant.id)
        await take_away(how, spicedb_proxy)
        began = time.monotonic()
        for _, root in made:
            await parts.role(root, "bob", Role.VIEWER)

        async def is_over() -> bool:
            assert not any(lane._aside for lane in lanes(relay)), "an outage is held against a tenant"
            assert not await sql(database_url, "SELECT FROM parked_operation"), "an outage is held against a tenant"
            return time.monotonic() - began > SECONDS and any(lane._backoff.failures > 2 for lane in lanes(relay))

        try:
            await eventually(is_over, SECONDS + 20)
        finally:
            await bring_back(how, spicedb_proxy)
        for tenant, _ in made:
            await require_truth(database_url, store, tenant.id)
    assert not await sql(database_url, "SELECT FROM parked_operation")


@pytest.mark.parametrize("how", ["refused", "silent", "to deliveries alone"])
async def test_spicedb_down_for_long(
    parts: Parts, relaying: Relaying, store: SpiceDB, spicedb_proxy: Proxy, database_url: str, how: str
) -> None:
    await down(how, parts, relaying, store, spicedb_proxy, database_url)


async def test_it_is_broken_where_no_answer_counts_as_a_refusal(
    parts: Parts,
    relaying: Relaying,
    store: SpiceDB,
    spicedb_proxy: Proxy,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where nothing else is answered either, that alone keeps the relay from parking."""

    async def unread(_: Fence) -> None:
        """It is said to be as we were told."""

    monkeypatch.setitem(errors._WRITE_CODES, grpc.StatusCode.UNAVAILABLE, WriteFailure.OPERATION)
    monkeypatch.setattr(Fence, "require_unchanged", unread)
    monkeypatch.setattr(fence, "BUSY_SECONDS", 60.0)  # else the fence is what fails first
    with is_broken("held against a tenant"):
        await down("to deliveries alone", parts, relaying, store, spicedb_proxy, database_url)
