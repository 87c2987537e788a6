"""Promise 7: SpiceDB down for long: nothing is held against any tenant, all drained after."""

from __future__ import annotations

import time

import grpc
import pytest

from pemba.model import Role
from pemba.relay import fence
from pemba.relay.fence import Fence
from pemba.relay.lane import Lane
from pemba.relay.relay import Relay
from pemba.spicedb import errors
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.errors import WriteFailure
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import Relaying, delivers_all
from tests.promises.conftest import is_broken
from tests.proxy import Proxy
from tests.truth import eventually, require_truth

SECONDS = 3.0


def lanes(relay: Relay) -> list[Lane]:
    return list(relay._leases.lanes.values())


async def down(
    how: str, parts: Parts, relaying: Relaying, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    """While changes of three tenants are due, for many times as long as a write may take."""
    made = [await parts.tenant() for _ in range(3)]
    async with relaying(rpc_seconds=0.3, poll_max_seconds=0.1) as relay:
        await eventually(lambda: delivers_all(relay))
        for tenant, _ in made:
            await require_truth(database_url, store, tenant.id)
        if how == "refused":
            await spicedb_proxy.refuse()
        else:
            spicedb_proxy.freeze()
        began = time.monotonic()
        for _, root in made:
            await parts.role(root, "bob", Role.VIEWER)

        async def is_over() -> bool:
            assert not any(lane._aside for lane in lanes(relay)), "an outage is held against a tenant"
            return time.monotonic() - began > SECONDS and any(lane._backoff.failures > 2 for lane in lanes(relay))

        await eventually(is_over, SECONDS + 20)
        spicedb_proxy.thaw()
        if how == "refused":
            await spicedb_proxy.accept()
        for tenant, _ in made:
            await require_truth(database_url, store, tenant.id)


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_spicedb_down_for_long(
    parts: Parts, relaying: Relaying, store: SpiceDB, spicedb_proxy: Proxy, database_url: str, how: str
) -> None:
    await down(how, parts, relaying, store, spicedb_proxy, database_url)


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_it_is_broken_where_no_answer_counts_as_a_refusal(
    parts: Parts,
    relaying: Relaying,
    store: SpiceDB,
    spicedb_proxy: Proxy,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    async def unread(_: Fence) -> None:
        """It is said to be as we were told."""

    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        monkeypatch.setitem(errors._WRITE_CODES, code, WriteFailure.OPERATION)
    monkeypatch.setattr(Fence, "require_unchanged", unread)
    monkeypatch.setattr(fence, "BUSY_SECONDS", 60.0)  # else the fence is what fails first
    with is_broken("held against a tenant"):
        await down(how, parts, relaying, store, spicedb_proxy, database_url)
    spicedb_proxy.thaw()
