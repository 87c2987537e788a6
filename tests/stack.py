"""Processes of Pemba for a test to start, stop, kill and freeze, and short ways to call them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
from google.rpc import error_details_pb2, status_pb2

from pemba.dev.pemba_process import PembaProcess, Relay, Serve
from pemba.dev.ports import choose_ports
from pemba.dev.process import Server
from pemba.v1 import (
    memberships_pb2,
    memberships_pb2_grpc,
    permissions_pb2,
    permissions_pb2_grpc,
    tenants_pb2,
    tenants_pb2_grpc,
    types_pb2,
    workspaces_pb2,
)

KEY = "system-key-of-the-tests-" + "k" * 16
ROOT_SECRET = "r" * 32

# A server that is killed comes back at once: nobody should stay away from it for long.
_CHANNEL = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 300),
]
_WARNINGS = "default::ResourceWarning,default::RuntimeWarning"


def serve_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """What `serve` needs beside PostgreSQL and SpiceDB, on ports that are free."""
    listen = {"grpc_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}
    return {**listen, "system_keys": (KEY,), "root_secrets": (ROOT_SECRET,), **settings}


@dataclass
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str


async def run_command(*arguments: str, **settings: object) -> Ran:
    """Run `pemba ARGUMENTS` as a person does, with these settings."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pemba", *arguments),
        env={**os.environ, **{f"PEMBA_{name.upper()}": str(value) for name, value in settings.items()}},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return Ran(process.returncode or 0, out.decode(), err.decode())


class Processes:
    """`pemba serve` and `pemba relay` as child processes, on one PostgreSQL and one SpiceDB."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self._folder = folder
        self._settings = {"system_keys": KEY, "root_secrets": ROOT_SECRET, **settings}
        self._started: list[PembaProcess] = []

    async def serve(self, kind: type[Serve] = Serve, **settings: object) -> Serve:
        """A new `pemba serve`, serving."""
        ports = choose_ports({"grpc": 0, "http": 0})
        listen = {"grpc_listen": ports["grpc"], "http_listen": ports["http"]}
        return await self._start(kind, "serve", {**listen, **settings})

    async def relay(self, kind: type[Relay] = Relay, **settings: object) -> Relay:
        """A new `pemba relay` whose readiness says yes: it delivers, or stands by."""
        listen = {"relay_http_listen": choose_ports({"http": 0})["http"]}
        return await self._start(kind, "relay", {**listen, **settings})

    async def stop(self, *processes: PembaProcess) -> None:
        """Stop them, all by default, as a deployment does; each ends by itself, in order and without complaint."""
        for process in processes or tuple(reversed(self._started)):
            if process.pid is not None:
                await asyncio.to_thread(process.stop)
                require_clean_end(process)

    def kill(self) -> None:
        for process in self._started:
            process.kill()

    async def _start(self, kind: type[Any], name: str, settings: Mapping[str, object]) -> Any:
        environment = {f"PEMBA_{key.upper()}": str(value) for key, value in {**self._settings, **settings}.items()}
        log = self._folder / f"{name}_{len(self._started)}.log"
        process = kind(name, {**environment, "PYTHONWARNINGS": _WARNINGS}, log)
        self._started.append(process)
        await asyncio.to_thread(process.start)
        return process


@asynccontextmanager
async def processes(folder: Path, **settings: object) -> AsyncIterator[Processes]:
    """Whatever runs at the end of a test that went well is stopped in order, and looked at."""
    running = Processes(folder, **settings)
    try:
        yield running
        await running.stop()
    finally:
        running.kill()


def require_clean_end(process: Server) -> None:
    """It ended by itself, and its log holds no traceback, no warning of Python's, nothing that it left open."""
    assert "(exit code 0)" in process.last_words(), process.last_words()
    complaints = [line for line in process.log.read_text().splitlines() if not _is_event(line)]
    assert not complaints, complaints


def _is_event(line: str) -> bool:
    """A line of our own log that is no error; whatever writes past it to stderr has something to complain about."""
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return "exception" not in event and event.get("logger") != "asyncio"


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


class Calls:
    """One `serve`, as a service with a system key calls it."""

    def __init__(self, endpoint: str) -> None:
        self.channel = grpc.aio.insecure_channel(endpoint, options=_CHANNEL)
        self._tenants = tenants_pb2_grpc.TenantServiceStub(self.channel)
        self._memberships = memberships_pb2_grpc.MembershipServiceStub(self.channel)
        self._permissions = permissions_pb2_grpc.PermissionServiceStub(self.channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {KEY}"),)

    async def tenant(self, slug: str, request_id: str = "", timeout: float = 10.0) -> tenants_pb2.CreateTenantResponse:
        request = tenants_pb2.CreateTenantRequest(
            slug=slug, name=slug.title(), first_admin="alice", request_id=request_id
        )
        return await self._tenants.CreateTenant(request, metadata=self.metadata, timeout=timeout)

    async def grant(
        self,
        on: workspaces_pb2.Workspace,
        user: str,
        role: types_pb2.Role = types_pb2.ROLE_VIEWER,
        request_id: str = "",
        timeout: float = 10.0,
    ) -> str:
        """The token of the change."""
        request = memberships_pb2.SetRoleRequest(
            tenant_id=on.tenant_id, object=_workspace(on), subject=_user(user), role=role, request_id=request_id
        )
        return (await self._memberships.SetRole(request, metadata=self.metadata, timeout=timeout)).token

    async def revoke(self, on: workspaces_pb2.Workspace, user: str, request_id: str = "", timeout: float = 10.0) -> str:
        """The token of the change; empty where there was nothing to take away."""
        request = memberships_pb2.RemoveMemberRequest(
            tenant_id=on.tenant_id,
            object=_workspace(on),
            subject=_user(user),
            allow_missing=True,
            request_id=request_id,
        )
        return (await self._memberships.RemoveMember(request, metadata=self.metadata, timeout=timeout)).token

    async def may_view(
        self, workspace: workspaces_pb2.Workspace, user: str, token: str = "", timeout: float = 10.0
    ) -> bool:
        """Whether the answer, at least as fresh as `token`, is ALLOWED; False is DENIED."""
        request = permissions_pb2.CheckRequest(
            tenant_id=workspace.tenant_id,
            resource=_workspace(workspace),
            permission="view",
            subject=_user(user),
            consistency=types_pb2.Consistency(at_least_as_fresh=token) if token else None,
        )
        answer = await self._permissions.Check(request, metadata=self.metadata, timeout=timeout)
        assert answer.decision in (permissions_pb2.DECISION_ALLOWED, permissions_pb2.DECISION_DENIED)
        return answer.decision == permissions_pb2.DECISION_ALLOWED


@asynccontextmanager
async def calling(endpoint: str) -> AsyncIterator[Calls]:
    calls = Calls(endpoint)
    async with calls.channel:
        yield calls


class Refusal:
    """What a failed call says: code, reason, metadata, and after how many seconds to come back (None: not said)."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.retry_seconds: float | None = None
        details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
        for detail in status_pb2.Status.FromString(details).details if details else ():
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                self.reason, self.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(retry):
                self.retry_seconds = retry.retry_delay.ToMilliseconds() / 1000

    def __repr__(self) -> str:
        return f"<{self.code.name} {self.reason} {self.metadata} retry in {self.retry_seconds}>"


def _workspace(workspace: workspaces_pb2.Workspace) -> types_pb2.ObjectRef:
    return types_pb2.ObjectRef(type="workspace", id=workspace.id)


def _user(user: str) -> types_pb2.SubjectRef:
    return types_pb2.SubjectRef(type="user", id=user)
