"""The gRPC server: services, health, reflection, and the limits that hold before any key is looked at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pemba.authorizer import Authorizer
from pemba.rpc.api_keys import ApiKeys
from pemba.rpc.audit import Audit
from pemba.rpc.authentication import Authentication
from pemba.rpc.groups import Groups
from pemba.rpc.invitations import Invitations
from pemba.rpc.limits import Admission
from pemba.rpc.memberships import Memberships
from pemba.rpc.method import Gate, Readiness, method_handler
from pemba.rpc.operations import Operations
from pemba.rpc.permissions import Permissions
from pemba.rpc.shares import Shares
from pemba.rpc.tenants import Tenants
from pemba.rpc.tls import TlsFiles, server_credentials
from pemba.rpc.users import Users
from pemba.rpc.watch import Watch
from pemba.rpc.workspaces import Workspaces
from pemba.service.api_keys import ApiKeyService
from pemba.service.audit import AuditService
from pemba.service.groups import GroupService
from pemba.service.invitations import InvitationService
from pemba.service.memberships import MembershipService
from pemba.service.operations import OperationsService
from pemba.service.refusals import Refusals
from pemba.service.roster_reads import RosterReads
from pemba.service.settings import SettingsService
from pemba.service.shares import ShareService
from pemba.service.tenants import TenantService
from pemba.service.users import UserService
from pemba.service.watch import WatchService
from pemba.service.workspaces import WorkspaceService
from pemba.v1 import (
    api_keys_pb2,
    audit_pb2,
    groups_pb2,
    invitations_pb2,
    memberships_pb2,
    operations_pb2,
    permissions_pb2,
    shares_pb2,
    tenants_pb2,
    users_pb2,
    watch_pb2,
    workspaces_pb2,
)

SERVICES: tuple[ServiceDescriptor, ...] = (
    permissions_pb2.DESCRIPTOR.services_by_name["PermissionService"],
    tenants_pb2.DESCRIPTOR.services_by_name["TenantService"],
    workspaces_pb2.DESCRIPTOR.services_by_name["WorkspaceService"],
    memberships_pb2.DESCRIPTOR.services_by_name["MembershipService"],
    groups_pb2.DESCRIPTOR.services_by_name["GroupService"],
    shares_pb2.DESCRIPTOR.services_by_name["ShareService"],
    users_pb2.DESCRIPTOR.services_by_name["UserService"],
    api_keys_pb2.DESCRIPTOR.services_by_name["ApiKeyService"],
    invitations_pb2.DESCRIPTOR.services_by_name["InvitationService"],
    operations_pb2.DESCRIPTOR.services_by_name["OperationsService"],
    audit_pb2.DESCRIPTOR.services_by_name["AuditService"],
    watch_pb2.DESCRIPTOR.services_by_name["WatchService"],
)


@dataclass(frozen=True, slots=True)
class Services:
    """What the methods call, and the two that audit what no method does."""

    authorizer: Authorizer
    tenants: TenantService
    workspaces: WorkspaceService
    memberships: MembershipService
    groups: GroupService
    shares: ShareService
    users: UserService
    api_keys: ApiKeyService
    operations: OperationsService
    settings: SettingsService
    audit: AuditService
    watch: WatchService
    refusals: Refusals
    roster_reads: RosterReads
    invitations: InvitationService


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the server; beyond `max_concurrent_rpcs` calls get RESOURCE_EXHAUSTED at once."""

    max_message_bytes: int = 4 * 1024 * 1024
    max_concurrent_rpcs: int = 1000
    default_deadline_seconds: float = 30.0
    """The longest a call may run, but for `method.LONG_SECONDS`; a caller's own deadline holds where it is shorter."""
    keepalive_seconds: float = 60.0
    """Idle connections are asked this often whether they are still there."""
    min_ping_seconds: float = 10.0
    """A client that asks more often than this is disconnected."""

    def channel_options(self) -> list[tuple[str, int]]:
        """As gRPC's core takes them."""
        return [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.keepalive_time_ms", round(self.keepalive_seconds * 1000)),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", round(self.min_ping_seconds * 1000)),
            # Two servers on one port would share its calls without a word.
            ("grpc.so_reuseport", 0),
        ]


@dataclass(frozen=True, slots=True)
class RpcServer:
    """A server bound to its port; health is NOT_SERVING until `set_serving`."""

    server: grpc.aio.Server
    port: int
    health: health.aio.HealthServicer

    async def start(self) -> None:
        """Accept calls."""
        await self.set_serving(False)
        await self.server.start()

    async def set_serving(self, serving: bool) -> None:
        """What health checks are told, of the server as a whole and of each service."""
        kinds = health_pb2.HealthCheckResponse
        for name in ("", *(service.full_name for service in SERVICES)):
            await self.health.set(name, kinds.SERVING if serving else kinds.NOT_SERVING)

    async def stop(self, drain_seconds: float) -> None:
        """Say NOT_SERVING, refuse new calls, give those under way `drain_seconds`, then cancel them."""
        await self.health.enter_graceful_shutdown()
        await self.server.stop(drain_seconds)


def build_server(
    listen: str,
    services: Services,
    authentication: Authentication,
    admission: Admission,
    readiness: Readiness,
    limits: Limits,
    *,
    tls: TlsFiles | None = None,
    with_reflection: bool = False,
) -> RpcServer:
    """A server bound to `listen` (host:port; port 0 takes a free one), not started; call it in the event loop.

    Raises OSError where the address cannot be bound, ConfigError where the files of `tls` do not fit.
    """
    server = grpc.aio.server(options=limits.channel_options(), maximum_concurrent_rpcs=limits.max_concurrent_rpcs)
    gate = Gate(
        authentication,
        admission,
        readiness,
        limits.default_deadline_seconds,
        services.refusals,
        services.roster_reads,
    )
    parts = (
        Permissions(services.authorizer),
        Tenants(services.tenants),
        Workspaces(services.workspaces, services.settings),
        Memberships(services.memberships),
        Groups(services.groups),
        Shares(services.shares),
        Users(services.users),
        ApiKeys(services.api_keys),
        Invitations(services.invitations),
        Operations(services.operations),
        Audit(services.audit),
        Watch(services.watch),
    )
    for service, part in zip(SERVICES, parts, strict=True):
        server.add_generic_rpc_handlers((_handlers(service, part, gate),))
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    if with_reflection:
        names = [service.full_name for service in SERVICES]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    return RpcServer(server, _bind(server, listen, tls), status)


def _handlers(service: ServiceDescriptor, part: object, gate: Gate) -> grpc.GenericRpcHandler:
    """Each method of the service goes to the method of `part` with its name in snake case."""
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        method.name: method_handler(method, getattr(part, _snake_case(method.name)), gate) for method in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _bind(server: grpc.aio.Server, listen: str, tls: TlsFiles | None) -> int:
    try:
        if tls is not None:
            return server.add_secure_port(listen, server_credentials(tls))
        return server.add_insecure_port(listen)
    except RuntimeError as error:
        raise OSError(f"cannot listen for gRPC on {listen}") from error
