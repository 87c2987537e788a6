"""Everything at once, for as long as it takes: changes and questions while every process is killed, frozen and cut off.

The seed is printed, and PEMBA_TEST_SEED sets it: what the dice say is the same again, when it happens is not.
PEMBA_TEST_SOAK_SECONDS makes it shorter or longer, and PEMBA_TEST_WITHOUT (`faults.guards`) shows what it finds where a
guard is switched off.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pemba.dev.postgres import Postgres
from tests.conftest import Starting
from tests.crash.faults.recording import resurrected
from tests.crash.soak.callers import USERS, Callers, Tenant
from tests.crash.soak.faults import FAULTS, Emptied, Gremlins, empty_store
from tests.crash.soak.judging import history_of, is_of_an_emptied_store, lost, unexplained
from tests.crash.soak.world import OUTAGE_SECONDS, World, whole_world
from tests.stack import run_command
from tests.truth import eventually, require_truth, sql

KNOWS_FOR = OUTAGE_SECONDS + 1.0
TENANTS = 3


@pytest.mark.parametrize(
    ("seconds", "times_emptied"),
    [(60, 1), pytest.param(600, 2, marks=[pytest.mark.long, pytest.mark.timeout(1500)])],
    ids=["minute", "long"],
)
async def test_whatever_goes_wrong_nothing_is_lost_and_no_answer_is_older_than_its_token(
    servers: Starting,
    own_postgres: Callable[[], Postgres],
    tmp_path: Path,
    say: Callable[[str], None],
    seconds: float,
    times_emptied: int,
) -> None:
    seconds = float(os.environ.get("PEMBA_TEST_SOAK_SECONDS") or seconds)
    seed = int(os.environ.get("PEMBA_TEST_SEED") or secrets.randbelow(10**9))
    spicedb = await asyncio.to_thread(servers.own_spicedb, f"spicedb_soak_{secrets.token_hex(4)}")
    postgres = await asyncio.to_thread(own_postgres)
    applied = await run_command(
        *("schema", "apply"),
        database_url=postgres.url("pemba", "pemba"),
        spicedb_endpoint=spicedb.endpoint,
        spicedb_key=spicedb.key,
    )
    assert applied.code == 0, applied
    async with whole_world(tmp_path, postgres, spicedb) as world:
        callers = Callers(world, [await new_tenant(world, n) for n in range(TENANTS)], seed)
        try:
            injected, emptied = await under_faults(world, callers, seed, seconds, times_emptied)
            say(report(seed, seconds, callers, injected))
            await require_all_well(world, callers, emptied)
        except BaseException:
            say(f"the seed of this soak: PEMBA_TEST_SEED={seed}, its logs: {tmp_path}")
            raise
    await asyncio.to_thread(spicedb.stop)


async def new_tenant(world: World, number: int) -> Tenant:
    created = await world.calls[0].tenant(f"acme-{number}")
    tenant = Tenant(created.tenant.id, created.root_workspace.id, tokens=[created.token])
    for user in USERS:
        tenant.tokens = [await world.calls[0].grant(created.root_workspace, user)]
    return tenant


async def under_faults(
    world: World, callers: Callers, seed: int, seconds: float, times_emptied: int
) -> tuple[Counter[str], list[Emptied]]:
    callers.start()
    gremlins = Gremlins(world, seed)
    emptied: list[Emptied] = []
    began = time.monotonic()

    async def is_past(moment: float) -> bool:
        return time.monotonic() - began > moment

    for turn in range(1, times_emptied + 1):
        await eventually(partial(is_past, turn * seconds / (times_emptied + 1)), seconds + 60, every=0.5)
        emptied.append(await empty_store(world))
        gremlins.injected["emptied: spicedb"] += 1
    await eventually(partial(is_past, seconds), seconds + 60, every=0.5)
    await gremlins.stop()
    await world.all_up()
    await asyncio.wait_for(callers.stop(), 60)
    return gremlins.injected, emptied


async def require_all_well(world: World, callers: Callers, emptied: list[Emptied]) -> None:
    """What a store says before anybody knows that it lost everything grants nothing, and is all that is excused."""
    await eventually(lambda: no_job_is_left(world.url), 30, every=0.1)
    await eventually(lambda: is_filled(world.url), 60, every=0.1)
    for tenant in callers.tenants:
        await require_truth(world.url, world.store, tenant.id)
    assert await resurrected(world.seen, world.url) == []
    history = await history_of(world.url, KNOWS_FOR)
    assert await lost(world.url, history, callers.acknowledged) == []
    wrong = list(unexplained(history, callers.told))
    assert [each for each in wrong if not is_of_an_emptied_store(each, emptied, KNOWS_FOR)] == []
    assert callers.strange == []
    assert min(len(callers.told), len(callers.acknowledged)) > 20, "next to nothing was under way"


async def no_job_is_left(url: str) -> bool:
    return not await sql(url, "SELECT FROM user_job")


async def is_filled(url: str) -> bool:
    return bool(await sql(url, "SELECT FROM installation WHERE store_epoch = filled_epoch"))


def report(seed: int, seconds: float, callers: Callers, injected: Counter[str]) -> str:
    """How much of everything there was."""
    with_token = sum(bool(told.token) for told in callers.told)
    allowed = sum(told.allowed for told in callers.told)
    lines = [
        f"soak of {seconds:.0f} s, PEMBA_TEST_SEED={seed}",
        f"  changes acknowledged: {len(callers.acknowledged)}, sent again because in doubt: {callers.retried}",
        *(f"    {name}: {count}" for name, count in sorted(callers.changes.items())),
        f"  answers: {len(callers.told)}, {with_token} of them to a token, {allowed} ALLOWED",
        "  refused:",
        *(f"    {name}: {count}" for name, count in sorted(callers.refused.items())),
        f"  faults injected: {injected.total()}",
        *(f"    {name}: {count}" for name, count in sorted(injected.items())),
    ]
    missing = {fault.name for fault in FAULTS} - {name.partition(":")[0] for name in +injected}
    return "\n".join([*lines, *(f"  not injected this time: {name}" for name in sorted(missing))])
