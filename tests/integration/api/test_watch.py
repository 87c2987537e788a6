"""WatchService over gRPC on real servers: what a check says at each event, and what a killed server leaves behind."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from pemba.dev.process import Server
from pemba.v1 import memberships_pb2, types_pb2, watch_pb2, watch_pb2_grpc
from pemba.v1.types_pb2 import ROLE_VIEWER
from pemba.v1.watch_pb2 import WatchChangesRequest, WatchPositionsRequest
from tests.stack import Calls, Refusal, calling, processes, run_command
from tests.truth import eventually, sql

SECONDS = 20


@pytest.fixture
def watches(api):
    return watch_pb2_grpc.WatchServiceStub(api.channel)


async def first_of(call) -> watch_pb2.WatchChangesResponse:
    """Which says that everything from now on is told."""
    async with asyncio.timeout(SECONDS):
        message = await call.read()
    assert message is not grpc.aio.EOF
    assert not message.HasField("change")
    return message


async def next_role(call) -> watch_pb2.WatchChangesResponse:
    """The next change of one."""
    async with asyncio.timeout(SECONDS):
        while (message := await call.read()).change.method not in ("SetRole", "RemoveMember"):
            pass
    return message


def user_of(message: watch_pb2.WatchChangesResponse) -> str:
    [record] = message.change.records
    return (record.after if record.HasField("after") else record.before)["subject"]["id"]


async def role(api, on, user: str, *, gone: bool = False) -> None:
    given = {
        "tenant_id": on.tenant_id,
        "object": types_pb2.ObjectRef(type="workspace", id=on.id),
        "subject": types_pb2.SubjectRef(type="user", id=user),
    }
    if gone:
        await api.memberships.RemoveMember(memberships_pb2.RemoveMemberRequest(**given), metadata=api.metadata())
    else:
        request = memberships_pb2.SetRoleRequest(**given, role=ROLE_VIEWER)
        await api.memberships.SetRole(request, metadata=api.metadata())


async def test_once_a_revoke_is_told_a_check_with_its_token_and_one_without_deny(api, watches) -> None:
    eng = (await api.workspace((await api.tenant("acme")).root_workspace, "eng")).workspace
    call = watches.WatchChanges(
        WatchChangesRequest(tenant_id=eng.tenant_id, workspace_id=eng.id), metadata=api.metadata()
    )
    await first_of(call)

    async def change() -> None:
        for n in range(30):
            await role(api, eng, f"u{n // 2}", gone=n % 2 == 1)

    changing = asyncio.create_task(change())
    told = []
    for _ in range(30):
        message = await next_role(call)
        user, granted = user_of(message), message.change.records[0].HasField("after")
        told.append((user, granted))
        if not granted:
            assert not await api.check(eng, user, "view"), "which waits for nothing"
            assert not await api.check(eng, user, "view", message.change.token)
    await changing
    assert told == [(f"u{n // 2}", n % 2 == 0) for n in range(30)]
    call.cancel()


async def test_what_is_granted_is_told_no_sooner_than_a_check_allows_it(api, watches) -> None:
    eng = (await api.workspace((await api.tenant("acme")).root_workspace, "eng")).workspace
    call = watches.WatchChanges(
        WatchChangesRequest(tenant_id=eng.tenant_id, workspace_id=eng.id), metadata=api.metadata()
    )
    await first_of(call)
    changing = asyncio.gather(*(role(api, eng, f"u{n}") for n in range(30)))
    for _ in range(30):
        assert await api.check(eng, user_of(await next_role(call)), "view")
    await changing
    call.cancel()


async def test_positions_move_with_what_is_delivered_and_their_token_has_it_in_force(api, watches) -> None:
    root = (await api.tenant("acme")).root_workspace
    call = watches.WatchPositions(WatchPositionsRequest(tenant_ids=[root.tenant_id]), metadata=api.metadata())
    first = await call.read()
    await role(api, root, "bob")
    seen = first.positions[0].delivered_seq
    async with asyncio.timeout(SECONDS):
        while seen < 2:
            message = await call.read()
            assert (message.database_epoch, message.store_epoch) == (first.database_epoch, first.store_epoch)
            for position in message.positions:
                seen, token = position.delivered_seq, position.token
    assert await api.check(root, "bob", "view", token)
    call.cancel()


async def test_who_may_not_see_it_and_who_watches_too_much_are_refused(api, watches, reason) -> None:
    root = (await api.tenant("acme")).root_workspace
    request = WatchChangesRequest(tenant_id=root.tenant_id, workspace_id=root.id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await first_of(watches.WatchChanges(request, metadata=api.metadata(pemba_on_behalf_of="user:eve")))
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    calls = [watches.WatchChanges(request, metadata=api.metadata()) for _ in range(101)]
    await asyncio.gather(*(first_of(call) for call in calls[:100]), return_exceptions=True)
    ended = [call for call in calls if call.done()]
    refusal = Refusal(await failure_of(ended[0]))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert refusal.retry_seconds == 5
    for call in calls:
        call.cancel()


async def failure_of(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    return caught.value


async def test_people_follow_changes_on_the_command_line(api, tmp_path: Path) -> None:
    made = await api.tenant("acme")
    log = tmp_path / "out"
    with log.open("w") as out:
        following = await asyncio.create_subprocess_exec(
            *("pemba", "watch", "-t", "acme", "--workspace", "/", "-o", "json"),
            env=environment(api),
            stdout=out,
            stderr=asyncio.subprocess.STDOUT,
        )
        await eventually(lambda: contains(log, '"cursor"'), SECONDS)
        await role(api, made.root_workspace, "bob")
        await eventually(lambda: contains(log, '"SetRole"'), SECONDS)
        following.terminate()
        await following.wait()
    ran = await run_command("watch", "-t", "acme", "--workspace", "nowhere", endpoint=api.endpoint, key=api.key)
    assert (ran.code, "was not found" in ran.err) == (3, True)


def environment(api) -> dict[str, str]:
    import os
    import sys

    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PEMBA_ENDPOINT": api.endpoint, "PEMBA_KEY": api.key}


async def contains(log: Path, text: str) -> bool:
    return text in await asyncio.to_thread(log.read_text)


# -- servers that stop, and are killed -----------------------------------------------------------------------


class Reader:
    """Follows a workspace through whatever server is there, from the last cursor on."""

    def __init__(self, workspace) -> None:
        self.workspace = workspace
        self.cursor = ""
        self.users: list[str] = []
        self.connected = 0

    async def read(self, calls: Calls) -> None:
        request = WatchChangesRequest(
            tenant_id=self.workspace.tenant_id, workspace_id=self.workspace.id, cursor=self.cursor
        )
        self.connected += 1
        with suppress(grpc.aio.AioRpcError):
            async for message in watch_pb2_grpc.WatchServiceStub(calls.channel).WatchChanges(
                request, metadata=calls.metadata
            ):
                self.cursor = message.cursor
                if message.change.method == "SetRole":
                    self.users.append(user_of(message))


async def endless(reader: Reader, servers: list[Calls]) -> None:
    while True:
        for calls in servers:
            await reader.read(calls)
            await asyncio.sleep(0.02)


async def test_after_a_killed_server_a_watch_goes_on_at_another_without_a_gap_and_without_a_repetition(
    database_url: str, spicedb, tmp_path: Path
) -> None:
    settings = {"database_url": database_url, "spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
    async with processes(tmp_path, **settings) as running:
        writer, one, two, _ = await asyncio.gather(*(running.serve() for _ in range(3)), running.relay())
        async with (
            calling(writer.settings["PEMBA_GRPC_LISTEN"]) as changes,
            calling(one.settings["PEMBA_GRPC_LISTEN"]) as first,
            calling(two.settings["PEMBA_GRPC_LISTEN"]) as second,
        ):
            root = (await changes.tenant("acme")).root_workspace
            reader = Reader(root)
            reading = asyncio.create_task(endless(reader, [first, second]))
            await eventually(lambda: has_cursor(reader), SECONDS)
            for n in range(120):
                await changes.grant(root, f"u{n:03}")
                if n in (30, 75):
                    await killed(one if n == 30 else two)
            await eventually(lambda: has_seen(reader, "u119"), SECONDS)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
        assert reader.users == [f"u{n:03}" for n in range(120)]
        assert reader.connected >= 3


async def killed(server: Server) -> None:
    """And back again."""
    server.kill()
    await asyncio.to_thread(server.start)


async def has_cursor(reader: Reader) -> bool:
    return bool(reader.cursor)


async def has_seen(reader: Reader, user: str) -> bool:
    return user in reader.users


async def test_nothing_is_told_that_no_relay_has_delivered_and_a_stop_waits_for_no_watch(
    database_url: str, spicedb, tmp_path: Path
) -> None:
    settings = {"database_url": database_url, "spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
    async with processes(tmp_path, **settings) as running:
        serve, relay = await asyncio.gather(running.serve(), running.relay())
        async with calling(serve.settings["PEMBA_GRPC_LISTEN"]) as calls:
            root = (await calls.tenant("acme")).root_workspace
            await eventually(lambda: is_delivered(database_url, root.tenant_id, 1))
            await running.stop(relay)
            reader = Reader(root)
            reading = asyncio.create_task(reader.read(calls))
            await eventually(lambda: has_cursor(reader), SECONDS)
            await calls.grant(root, "bob")
            await asyncio.sleep(1)
            assert reader.users == []
            await running.relay()
            await eventually(lambda: has_seen(reader, "bob"), SECONDS)
            stopped = time.monotonic()
            await running.stop(serve)
            assert time.monotonic() - stopped < 5, "it waits up to ten seconds for calls under way"
            await reading


async def is_delivered(url: str, tenant_id: str, seq: int) -> bool:
    return bool(
        await sql(url, "SELECT FROM tenant_delivery WHERE tenant_id = $1 AND delivered_seq >= $2", tenant_id, seq)
    )
