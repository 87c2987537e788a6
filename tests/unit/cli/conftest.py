"""The command line in this process, against a gRPC server in this process that answers from a list."""

import os
import sys
from concurrent import futures
from dataclasses import dataclass, field

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from pemba.cli.main import main
from pemba.v1 import (
    api_keys_pb2_grpc,
    audit_pb2_grpc,
    groups_pb2_grpc,
    invitations_pb2_grpc,
    memberships_pb2_grpc,
    operations_pb2_grpc,
    permissions_pb2_grpc,
    shares_pb2_grpc,
    tenants_pb2_grpc,
    users_pb2_grpc,
    watch_pb2_grpc,
    workspaces_pb2_grpc,
)


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    """Settings of the machine that runs the tests do not count."""
    for name in [name for name in os.environ if name.startswith("PEMBA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PEMBA_DATA_DIR", str(tmp_path / "dev"))


@pytest.fixture
def pemba(capsys, monkeypatch):
    """Run `pemba ARGUMENTS`."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["pemba", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return Outcome(int(exit_.value.code or 0), captured.out, captured.err)

    return run


@dataclass
class FakePemba:
    """Answers method after method; an answer that is a function gets the servicer's context."""

    answers: dict = field(default_factory=dict)
    requests: list = field(default_factory=list)
    metadata: list = field(default_factory=list)
    endpoint: str = ""
    health: HealthServicer = field(default_factory=HealthServicer)

    def answer(self, method, *responses):
        self.answers.setdefault(method, []).extend(responses)

    def _serve(self, method, request, context):
        self.requests.append((method, request))
        self.metadata.append(dict(context.invocation_metadata()))
        response = self.answers[method].pop(0)
        return response(context) if callable(response) else response


def _servicer(base, fake):
    def bind(method):
        return lambda _self, request, context: fake._serve(method, request, context)

    methods = {name: bind(name) for name in vars(base) if name[0].isupper()}
    return type(base.__name__, (base,), methods)()


@pytest.fixture
def api(monkeypatch):
    """A server that PEMBA_ENDPOINT and PEMBA_KEY lead to."""
    fake = FakePemba()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    for module, service in (
        (tenants_pb2_grpc, "TenantService"),
        (workspaces_pb2_grpc, "WorkspaceService"),
        (memberships_pb2_grpc, "MembershipService"),
        (groups_pb2_grpc, "GroupService"),
        (shares_pb2_grpc, "ShareService"),
        (users_pb2_grpc, "UserService"),
        (api_keys_pb2_grpc, "ApiKeyService"),
        (invitations_pb2_grpc, "InvitationService"),
        (permissions_pb2_grpc, "PermissionService"),
        (operations_pb2_grpc, "OperationsService"),
        (audit_pb2_grpc, "AuditService"),
        (watch_pb2_grpc, "WatchService"),
    ):
        servicer = _servicer(getattr(module, f"{service}Servicer"), fake)
        getattr(module, f"add_{service}Servicer_to_server")(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(fake.health, server)
    fake.health.set("", health_pb2.HealthCheckResponse.SERVING)
    fake.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    monkeypatch.setenv("PEMBA_ENDPOINT", fake.endpoint)
    monkeypatch.setenv("PEMBA_KEY", "k" * 32)
    yield fake
    server.stop(None).wait(5)
