"""What tests look into a running Pemba with: gates that hold one call while another comes, and counts of statements."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from pemba.storage.statement import Statement
from tests.truth import eventually


class Gate:
    """The first to come by stops until it is let go; those after it pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.reached, self._go = asyncio.Event(), asyncio.Event()
        before = getattr(owner, name)

        async def stop_first(*given: object, **named: object) -> object:
            answer = await before(*given, **named)
            if not self.reached.is_set():
                self.reached.set()
                await self._go.wait()
            return answer

        monkeypatch.setattr(owner, name, stop_first)

    def open(self) -> None:
        self._go.set()


async def one_behind_the_other(parts, gate: Gate, first: Awaitable, second: Callable[[], Awaitable]) -> list:
    """`second` starts while `first` stands at the gate, which opens when `second` waits for a lock, or is done."""
    early = asyncio.ensure_future(first)
    await asyncio.wait({early, asyncio.ensure_future(gate.reached.wait())}, return_when=asyncio.FIRST_COMPLETED)
    late = asyncio.ensure_future(second())

    async def waits() -> bool:
        return late.done() or bool(await parts.sql("SELECT FROM pg_locks WHERE NOT granted"))

    await eventually(waits)
    gate.open()
    return await asyncio.gather(early, late, return_exceptions=True)


@asynccontextmanager
async def counted_statements() -> AsyncIterator[list[str]]:
    """What is sent to PostgreSQL meanwhile, by anybody."""
    sent: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("rows", "row", "run"):
            original = getattr(Statement, name)

            async def counting(self, tx, original=original, **parameters):
                sent.append(self.sql)
                return await original(self, tx, **parameters)

            patch.setattr(Statement, name, counting)
        yield sent
