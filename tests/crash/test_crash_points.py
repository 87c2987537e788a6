"""A process that is killed at any of the named instants: whoever goes on ends with the truth, and nothing came back."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from pemba.dev.process import Server
from pemba.dev.spicedb import SpiceDB as SpiceDBServer
from pemba.spicedb.client import SpiceDB
from pemba.v1 import users_pb2, users_pb2_grpc, workspaces_pb2, workspaces_pb2_grpc
from tests.crash.faults.points import HEALING_POINTS, RELAY_POINTS, SERVE_POINTS
from tests.crash.faults.processes import FaultyRelay, FaultyServe
from tests.crash.faults.recording import Recording, recording, resurrected
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import Relaying, Serving, relaying, serving
from tests.integration.relay.test_healing import empty
from tests.stack import Calls, Processes, calling, processes, run_command
from tests.truth import as_owner, eventually, is_delivered, require_truth, sql

__all__ = ["relaying", "serving"]

Send = Callable[[Calls], Awaitable[str]]


@dataclass
class Sent:
    """What was asked for, in order: how to ask again, and the token where it was acknowledged."""

    requests: dict[str, Send] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    async def send(self, calls: Calls, request_id: str, request: Send) -> None:
        self.requests[request_id] = request
        self.tokens[request_id] = await request(calls)

    async def send_all_again(self, calls: Calls) -> None:
        """One request_id, one outcome, one token: whether the first try was heard of or not."""
        for request_id, request in self.requests.items():
            token = await request(calls)
            assert self.tokens.setdefault(request_id, token) == token, request_id


@dataclass
class Scene:
    """A server in this process that nobody kills, and a tenant in it."""

    url: str
    store: SpiceDB
    seen: Recording
    calls: Calls
    root: workspaces_pb2.Workspace
    sent: Sent = field(default_factory=Sent)
    running: Processes | None = None


@pytest.fixture
async def scene(database_url: str, store: SpiceDB, serving: Serving) -> AsyncIterator[Scene]:
    async with recording(database_url, store) as seen, serving() as calls:
        root = (await calls.tenant("acme")).root_workspace
        yield Scene(database_url, store, seen, calls, root)


def grant(root: workspaces_pb2.Workspace, user: str, request_id: str) -> Send:
    return lambda calls: calls.grant(root, user, request_id=request_id)


def revoke(root: workspaces_pb2.Workspace, user: str, request_id: str) -> Send:
    return lambda calls: calls.revoke(root, user, request_id=request_id)


def change_user(rpc: str, request: object) -> Send:
    async def send(calls: Calls) -> str:
        stub = users_pb2_grpc.UserServiceStub(calls.channel)
        return (await getattr(stub, rpc)(request, metadata=calls.metadata, timeout=10)).token

    return send


async def require_all_well(scene: Scene, relaying: Relaying, parts: Parts) -> None:
    """What the next ones make of it, whose leases are free as soon as those of the dead have run out."""
    await as_owner(scene.url, "outbox", "UPDATE relay_lease SET lease_until = now() WHERE holder IS NOT NULL")
    async with relaying():
        await scene.sent.send_all_again(scene.calls)
        await parts.all_jobs()
        await require_truth(scene.url, scene.store, scene.root.tenant_id)
    assert await resurrected(scene.seen, scene.url) == []
    remembered = await sql(scene.url, "SELECT request_id, token FROM idempotency WHERE request_id <> ''")
    assert {r["request_id"]: r["token"] for r in remembered} == scene.sent.tokens


def in_turn(points: Iterable[str]) -> list[Any]:
    """Before a COMMIT nothing is there yet, whenever that is: those take their turn in the long run."""
    early = (".before", ".uncommitted")
    return [pytest.param(p, marks=[pytest.mark.long]) if p.endswith(early) else p for p in points]


@pytest.mark.parametrize("point", in_turn(RELAY_POINTS))
async def test_a_relay_that_is_killed(
    running: Processes, scene: Scene, relaying: Relaying, parts: Parts, point: str
) -> None:
    """Changes go on while it runs, until it is gone; one of lease.release is asked to stop."""
    root, sent, calls = scene.root, scene.sent, scene.calls
    doomed = await running.relay(FaultyRelay, test_crash_at=f"{point}:2" if point.startswith("fence") else point)
    async with asyncio.timeout(25):
        for turn in itertools.count():
            user = f"user-{turn % 5}"
            await sent.send(calls, f"grant-{turn}", grant(root, user, f"grant-{turn}"))
            await sent.send(calls, f"revoke-{turn}", revoke(root, user, f"revoke-{turn}"))
            await sent.send(calls, f"again-{turn}", grant(root, user, f"again-{turn}"))
            if turn == 3:
                request = users_pb2.SuspendUserRequest(user_id="user-1", request_id="suspend")
                await sent.send(calls, "suspend", change_user("SuspendUser", request))
            if turn == 10 and point.startswith("lease.release"):
                await eventually(
                    lambda: is_delivered(scene.url, root.tenant_id), 20
                )  # it has begun, and knows how to stop
                psutil.Process(doomed.pid).terminate()
            with suppress(AssertionError):
                await eventually(lambda: has_ended(doomed), 0.2)
                break
    assert "SIGKILL" in doomed.last_words()
    await require_all_well(scene, relaying, parts)


async def has_ended(process: Server) -> bool:
    return process.pid is None


@pytest.mark.parametrize("point", in_turn(SERVE_POINTS))
async def test_a_server_that_is_killed(
    running: Processes, scene: Scene, relaying: Relaying, parts: Parts, point: str
) -> None:
    """In the middle of a change, of which its caller hears nothing; the same requests go to another server then."""
    doomed = await running.serve(FaultyServe, test_crash_at=point)
    root, sent = scene.root, scene.sent
    new_user = users_pb2.CreateUserRequest(id="bob", email="bob@acme.example", request_id="user")
    async with relaying(), calling(doomed.settings["PEMBA_GRPC_LISTEN"]) as calls:
        for request_id, request in (
            ("grant", grant(root, "mallory", "grant")),
            ("revoke", revoke(root, "mallory", "revoke")),
            ("user", change_user("CreateUser", new_user)),
        ):
            with suppress(grpc.aio.AioRpcError):
                await sent.send(calls, request_id, request)
        if point.startswith("refusal"):
            stub = workspaces_pb2_grpc.WorkspaceServiceStub(calls.channel)
            request = workspaces_pb2.DeleteWorkspaceRequest(tenant_id=root.tenant_id, workspace_id=root.id)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.DeleteWorkspace(request, metadata=calls.metadata, timeout=10)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await eventually(lambda: has_ended(doomed))
    assert "SIGKILL" in doomed.last_words()
    await require_all_well(scene, relaying, parts)


@pytest.fixture
async def lost(own_spicedb: Callable[[], SpiceDBServer], database_url: str, tmp_path: Path) -> AsyncIterator[Scene]:
    """The same before a SpiceDB of its own, of which this database knows the schema, and which is emptied."""
    spicedb = await asyncio.to_thread(own_spicedb)
    settings = {"database_url": database_url, "spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
    applied = await run_command("schema", "apply", **settings)
    assert applied.code == 0, applied
    store = SpiceDB.connect(spicedb.endpoint, spicedb.key)
    async with (
        processes(tmp_path, relay_lease_seconds=2, **settings) as running,
        recording(database_url, store) as seen,
    ):
        serve, relay = await asyncio.gather(running.serve(), running.relay())
        async with calling(serve.settings["PEMBA_GRPC_LISTEN"]) as calls:
            root = (await calls.tenant("acme")).root_workspace
            scene = Scene(database_url, store, seen, calls, root, running=running)
            for user in ("alice", "bob"):
                await scene.sent.send(calls, user, grant(root, user, user))
            await require_truth(database_url, store, root.tenant_id)
            await running.stop(relay)
            await asyncio.to_thread(empty, spicedb)
            yield scene
    await store.close()


@pytest.mark.long  # each starts a whole Pemba
@pytest.mark.parametrize("point", HEALING_POINTS)
async def test_a_relay_that_is_killed_while_it_fills_a_store_that_lost_everything(lost: Scene, point: str) -> None:
    assert lost.running is not None
    [life] = await sql(lost.url, "SELECT store_epoch FROM installation")
    doomed = await lost.running.relay(FaultyRelay, test_crash_at=point)
    await lost.sent.send(lost.calls, "carol", grant(lost.root, "carol", "carol"))
    await lost.sent.send(lost.calls, "no_bob", revoke(lost.root, "bob", "no_bob"))
    await eventually(lambda: has_ended(doomed), 20)
    assert "SIGKILL" in doomed.last_words()
    await lost.running.relay()
    await eventually(lambda: is_filled_again(lost.url, life["store_epoch"]), 30)
    await lost.sent.send_all_again(lost.calls)
    await require_truth(lost.url, lost.store, lost.root.tenant_id)
    assert await resurrected(lost.seen, lost.url) == []


async def is_filled_again(url: str, before: object) -> bool:
    """In another life: killed before its COMMIT, the first relay has declared none."""
    filled = "SELECT FROM installation WHERE store_epoch = filled_epoch AND store_epoch <> $1"
    return bool(await sql(url, filled, before))
