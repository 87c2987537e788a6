"""Callers that go on whatever happens, and remember what they were told."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable
from dataclasses import dataclass, field

import grpc

from pemba.v1 import workspaces_pb2
from tests.stack import Calls, Refusal


@dataclass
class Mutation:
    """One request, sent as often as it takes with the same request_id; `token` is None until it is acknowledged."""

    user: str
    grants: bool
    token: str | None = None

    @property
    def request_id(self) -> str:
        return f"{'grant' if self.grants else 'revoke'}-{self.user}"

    def send(self, calls: Calls, root: workspaces_pb2.Workspace, timeout: float) -> Awaitable[str]:
        change = calls.grant if self.grants else calls.revoke
        return change(root, self.user, request_id=self.request_id, timeout=timeout)


@dataclass
class Counts:
    """Of calls that began in one phase of a test; what is answered only in the next one does not count."""

    changed: int = 0
    checked: Counter[str] = field(default_factory=Counter)
    refused_changes: list[Refusal] = field(default_factory=list)
    refused_checks: dict[str, list[Refusal]] = field(default_factory=lambda: defaultdict(list))
    slowest: float = 0.0


class Load:
    """Callers that grant and revoke, each for users of its own, and callers that ask; all without a break.

    They ask what was asked before (`known`, of a tenant where nothing changes), what nobody asked yet (`new`), and with
    the latest token in hand (`with_token`).
    """

    def __init__(
        self, calls: Calls, root: workspaces_pb2.Workspace, quiet: workspaces_pb2.Workspace, timeout: float
    ) -> None:
        self._calls = calls
        self.root = root
        self._quiet = quiet
        self._strangers = itertools.count(1)
        self._timeout = timeout
        self._stopping = asyncio.Event()
        self._latest = ""
        self.mutations: list[Mutation] = []
        self.wrong: list[str] = []
        self.phase = Counts()
        changing = [self._keep_changing(number) for number in range(3)]
        self._tasks = [asyncio.create_task(work) for work in (*changing, self._keep_asking(), self._keep_asking())]

    def next_phase(self) -> Counts:
        """What begins from now on is counted anew."""
        self.phase = Counts()
        return self.phase

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def settle(self) -> None:
        """Send again what was not acknowledged, and some that was: one request_id, one outcome, one token."""
        in_doubt = [mutation for mutation in self.mutations if mutation.token is None]
        for mutation in [*in_doubt, *self.mutations[::10]]:
            token = await mutation.send(self._calls, self.root, 10)
            assert mutation.token in (None, token)
            mutation.token = token

    @property
    def users(self) -> set[str]:
        """Who has a role once every mutation has its outcome."""
        granted = {mutation.user for mutation in self.mutations if mutation.grants}
        return granted - {mutation.user for mutation in self.mutations if not mutation.grants}

    async def _keep_changing(self, number: int) -> None:
        turn = 0
        while not self._stopping.is_set():
            turn += 1
            grant = await self._change(Mutation(f"user-{number}-{turn}", grants=True))
            if grant.token is not None and turn % 3 == 0:
                await self._change(Mutation(grant.user, grants=False))

    async def _keep_asking(self) -> None:
        while not self._stopping.is_set():
            await self._check("known", self._quiet, "alice", True)
            await self._check("known", self._quiet, "nobody", False)
            await self._check("new", self.root, f"stranger-{next(self._strangers)}", False)
            await self._check("with_token", self.root, "alice", True, self._latest)

    async def _change(self, mutation: Mutation) -> Mutation:
        self.mutations.append(mutation)
        phase, began = self.phase, time.monotonic()
        try:
            mutation.token = self._latest = await mutation.send(self._calls, self.root, self._timeout)
            phase.changed += phase is self.phase
        except grpc.aio.AioRpcError as error:
            await self._pause(phase.refused_changes, error)
        phase.slowest = max(phase.slowest, time.monotonic() - began)
        return mutation

    async def _check(
        self, kind: str, root: workspaces_pb2.Workspace, user: str, expected: bool, token: str = ""
    ) -> None:
        phase, began = self.phase, time.monotonic()
        try:
            if await self._calls.may_view(root, user, token, timeout=self._timeout) is not expected:
                self.wrong.append(f"{user} with token {token!r} is not {expected}")
            phase.checked[kind] += phase is self.phase
        except grpc.aio.AioRpcError as error:
            await self._pause(phase.refused_checks[kind], error)
        phase.slowest = max(phase.slowest, time.monotonic() - began)

    async def _pause(self, refusals: list[Refusal], error: grpc.aio.AioRpcError) -> None:
        """Come back when told to, but soon, so that a short outage sees many calls."""
        refusals.append(refusal := Refusal(error))
        await asyncio.sleep(min(refusal.retry_seconds or 0.0, 0.05))
