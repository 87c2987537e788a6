"""How long after the answer to a change a check with its token is answered, by that change."""

from __future__ import annotations

import time

import grpc

from pemba.bench.figures import Figures, Goal, Row, of_samples, refusals
from pemba.bench.mutations import going_on
from pemba.bench.stage import Bench
from pemba.v1 import memberships_pb2, permissions_pb2, types_pb2
from pemba.v1.memberships_pb2_grpc import MembershipServiceStub
from pemba.v1.permissions_pb2_grpc import PermissionServiceStub

_ROLES = (types_pb2.ROLE_MEMBER, types_pb2.ROLE_VIEWER)
_CALL_SECONDS = 20.0
_MOST_PROBLEMS = 5


async def idle(bench: Bench) -> Row:
    figures, problems = await _measure(bench, bench.seconds * bench.rounds)
    goals = [Goal("p50 ms", figures.p50, 10), Goal("p99 ms", figures.p99, 50)]
    what = "SetRole, then a check with its token: from one answer to the other, nothing else going on"
    return Row(work="in-force", what=what, sides={"pemba": [figures]}, goals=goals, problems=problems)


async def busy(bench: Bench, rate: int) -> Row:
    seconds = bench.seconds * bench.rounds
    mutations: list[Figures] = []
    async with going_on(bench.many, rate, seconds, mutations):
        figures, problems = await _measure(bench, seconds * 0.9)
    sides = {"pemba": [figures], "mutations meanwhile": mutations}
    return Row(
        work="in-force-busy",
        what=f"the same with {rate} mutations a second over all tenants",
        sides=sides,
        goals=[Goal("p99 ms", figures.p99, 250)],
        problems=[*refusals(sides), *problems],
    )


class _Watched:
    """One user's role on one workspace, changed and asked about."""

    def __init__(self, bench: Bench, channel: grpc.aio.Channel) -> None:
        self._memberships = MembershipServiceStub(channel)
        self._permissions = PermissionServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {bench.ready.key}"),)
        self._tenant = bench.loaded.tenants[-1]
        self._workspace = types_pb2.ObjectRef(type="workspace", id=bench.loaded.workspaces[-1][1])
        self._user = types_pb2.SubjectRef(type="user", id="watched")

    async def change(self, role: types_pb2.Role.ValueType) -> str:
        request = memberships_pb2.SetRoleRequest(
            tenant_id=self._tenant, object=self._workspace, subject=self._user, role=role
        )
        answer = await self._memberships.SetRole(request, timeout=_CALL_SECONDS, metadata=self._metadata)
        return answer.token

    async def may_edit(self, token: str) -> bool:
        request = permissions_pb2.CheckRequest(
            tenant_id=self._tenant,
            resource=self._workspace,
            permission="edit",
            subject=self._user,
            consistency=types_pb2.Consistency(at_least_as_fresh=token),
        )
        answer = await self._permissions.Check(request, timeout=_CALL_SECONDS, metadata=self._metadata)
        return answer.decision == permissions_pb2.DECISION_ALLOWED


async def _measure(bench: Bench, seconds: float) -> tuple[Figures, list[str]]:
    milliseconds: list[float] = []
    problems: list[str] = []
    async with grpc.aio.insecure_channel(bench.ready.grpc) as channel:
        watched = _Watched(bench, channel)
        await watched.may_edit(await watched.change(types_pb2.ROLE_VIEWER))
        start = time.perf_counter()
        while time.perf_counter() < start + seconds:
            role = _ROLES[len(milliseconds) % 2]
            token = await watched.change(role)
            answered = time.perf_counter()
            if await watched.may_edit(token) != (role == types_pb2.ROLE_MEMBER):
                problems.append("an answer was older than its token")
            milliseconds.append((time.perf_counter() - answered) * 1000)
        return of_samples(milliseconds, time.perf_counter() - start), problems[:_MOST_PROBLEMS]
