"""What goes wrong: one list of faults, and gremlins that pick from it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import asyncpg
import grpc
import psutil

from pemba.dev.process import Server
from tests.crash.soak.world import Part, World
from tests.integration.relay.test_healing import empty
from tests.proxy import Proxy, Side
from tests.stack import family
from tests.truth import eventually, sql

Strike = Callable[[World, random.Random, str], Awaitable[bool]]
"""Does it to the target of that name, and undoes it; whether it came about."""


@dataclass(frozen=True)
class Fault:
    """`on` says whom it can hit; of two faults the one with the greater weight comes more often."""

    name: str
    on: str
    strike: Strike
    weight: int = 1


async def _kill(world: World, dice: random.Random, name: str) -> bool:
    server = world.servers[name]
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(dice.uniform(0.0, 2.0))
    await asyncio.to_thread(server.start)
    return True


async def _restart(world: World, dice: random.Random, name: str) -> bool:
    """As a deployment does."""
    server = world.servers[name]
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(dice.uniform(0.0, 0.5))
    await asyncio.to_thread(server.start)
    return True


async def _freeze(world: World, dice: random.Random, name: str) -> bool:
    """SIGSTOP and SIGCONT: shorter and longer than a lease lasts."""
    frozen = _suspended(world.servers[name])
    await asyncio.sleep(dice.choice((0.2, 1.0, 4.5)))
    for process in frozen:
        with suppress(psutil.NoSuchProcess):
            process.resume()
    return bool(frozen)


def _suspended(server: Server) -> list[psutil.Process]:
    if server.pid is None:
        return []
    frozen = family(server.pid)
    for process in frozen:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    return frozen


async def _cut(world: World, dice: random.Random, name: str) -> bool:
    await _proxy(world, dice, name).cut()
    return True


async def _refuse(world: World, dice: random.Random, name: str) -> bool:
    proxy = _proxy(world, dice, name)
    await proxy.refuse()
    await asyncio.sleep(dice.uniform(0.1, 2.0))
    await proxy.accept()
    return True


async def _swallow_all(world: World, dice: random.Random, name: str) -> bool:
    """A black hole; half of the time the connections are reset after it, as a network that comes back does."""
    proxy = _proxy(world, dice, name)
    proxy.freeze()
    await asyncio.sleep(dice.choice((0.3, 1.0, 4.0)))
    if dice.random() < 0.5:
        await proxy.cut()
    proxy.thaw()
    return True


async def _delay(world: World, dice: random.Random, name: str) -> bool:
    proxy = _proxy(world, dice, name)
    proxy.delay_seconds = dice.choice((0.01, 0.05, 0.3))
    await asyncio.sleep(dice.uniform(0.5, 2.0))
    proxy.delay_seconds = 0.0
    return True


async def _swallow_the_answer_to_commit(world: World, dice: random.Random, name: str) -> bool:
    return await _swallow_answer(_part(world, name).postgres, b"COMMIT\0")


async def _swallow_the_answer_to_a_delivery(world: World, dice: random.Random, name: str) -> bool:
    return await _swallow_answer(_part(world, name).spicedb, DELIVERY)


DELIVERY = b"ten_"
"""What of all that a relay says to SpiceDB only its deliveries hold."""


async def _swallow_answer(proxy: Proxy, request: bytes) -> bool:
    trap = proxy.trap(request)
    came = await _within(trap.answered, 3.0)
    if came:
        await proxy.cut()
    proxy.disarm(trap)
    return came


async def _deliver_late(world: World, dice: random.Random, name: str) -> bool:
    """The sender is told that its connection broke; what it sent arrives after all, after its retry."""
    proxy = _part(world, name).spicedb
    trap = proxy.trap(DELIVERY, Side.LATE)
    came = await _within(trap.sprung, 3.0)
    await asyncio.sleep(dice.uniform(0.1, 4.0) if came else 0.0)
    proxy.disarm(trap)
    return came and await _within(trap.answered, 3.0)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


def _part(world: World, name: str) -> Part:
    return next(part for part in (*world.relays, *world.serves) if part.name == name)


def _proxy(world: World, dice: random.Random, name: str) -> Proxy:
    part = _part(world, name)
    return dice.choice((part.postgres, part.spicedb))


FAULTS = (
    Fault("kill", "relay serve", _kill, 4),
    Fault("kill", "spicedb postgres", _kill, 2),
    Fault("restart", "relay serve", _restart, 1),
    Fault("freeze", "relay serve spicedb postgres", _freeze, 4),
    Fault("cut", "relay serve", _cut, 3),
    Fault("refuse", "relay serve", _refuse, 2),
    Fault("black hole", "relay serve", _swallow_all, 3),
    Fault("delay", "relay serve", _delay, 2),
    Fault("answer to COMMIT swallowed", "serve", _swallow_the_answer_to_commit, 3),
    Fault("answer to a delivery swallowed", "relay", _swallow_the_answer_to_a_delivery, 3),
    Fault("delivery late", "relay", _deliver_late, 3),
)


@dataclass
class Emptied:
    """SpiceDB lost everything but its schema: between these times (Unix seconds), until another life was declared."""

    began: float
    declared: float


async def empty_store(world: World) -> Emptied:
    """As soon as SpiceDB takes it; returns when that was noticed."""

    async def life() -> str:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return str((await sql(world.url, "SELECT store_epoch FROM installation"))[0]["store_epoch"])
        return ""

    async def is_empty() -> bool:
        with suppress(grpc.RpcError):
            await asyncio.to_thread(empty, world.spicedb)
            return True
        return False

    async def is_another() -> bool:
        return await life() not in ("", before)

    before = await eventually(life, 60)
    began = time.time()
    await eventually(is_empty, 60, every=0.1)
    await eventually(is_another, 60, every=0.05)
    return Emptied(began, time.time())


class Gremlins:
    """Each strikes one target at a time, and no two the same; what they did is counted by fault and kind of target."""

    def __init__(self, world: World, seed: int, count: int = 3) -> None:
        self.injected: Counter[str] = Counter()
        self._world = world
        self._busy: set[str] = set()
        self._stopping = asyncio.Event()
        self._tasks = [asyncio.create_task(self._strike(random.Random(f"{seed}/{n}"))) for n in range(count)]

    async def stop(self) -> None:
        """Each undoes what it has under way first."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _strike(self, dice: random.Random) -> None:
        while not self._stopping.is_set():
            [fault] = dice.choices(FAULTS, [fault.weight for fault in FAULTS])
            targets = [name for name in self._world.servers if name.partition("_")[0] in fault.on.split()]
            target = dice.choice(targets)
            if target in self._busy:
                await asyncio.sleep(0.05)
                continue
            self._busy.add(target)
            came = await fault.strike(self._world, dice, target)
            self._busy.remove(target)
            self.injected[f"{fault.name}: {target.partition('_')[0]}"] += came
            await _within(self._stopping, dice.uniform(0.0, 0.5))
