"""The contract keeps its own conventions: every RPC is walked."""

import importlib
import pkgutil

import pytest

import pemba.v1
from pemba.errors import Reason
from pemba.model import Role, Scope, TenantStatus, UserStatus, WorkspaceKind
from pemba.rpc.scopes import SCOPES
from pemba.rpc.server import SERVICES
from pemba.v1 import errors_pb2, tenants_pb2, types_pb2, users_pb2, workspaces_pb2

MODULES = [
    importlib.import_module(f"pemba.v1.{module.name}")
    for module in pkgutil.iter_modules(pemba.v1.__path__)
    if module.name.endswith("_pb2")
]
DEFINED = [service for module in MODULES for service in module.DESCRIPTOR.services_by_name.values()]
METHODS = [method for service in DEFINED for method in service.methods]
NOT_OF_ONE_TENANT = {
    "CreateTenant", "ListTenants", "CreateUser", "GetUser", "ListUsers", "UpdateUser", "SuspendUser", "ActivateUser",
    "DeactivateUser", "RecordLogin", "GetRelayStatus", "ReencryptSecrets", "WatchPositions",
    "AcceptInvitation", "DeclineInvitation",
}  # fmt: skip
WITHOUT_TOKEN = {
    "GetRelayStatus", "ListParkedOperations", "TailOutbox", "ReencryptSecrets", "ListAuditEvents", "ExportAuditEvents",
    "WatchChanges", "WatchPositions", "GetTenantDeletion",
}  # fmt: skip


def full_name(method):
    return f"/{method.containing_service.full_name}/{method.name}"


CHANGES_KEYS = ("CreateApiKey", "RevokeApiKey", "RotateApiKey")
WRITES = [m for m in METHODS if SCOPES.get(full_name(m)) is Scope.WRITE or m.name in CHANGES_KEYS]
LISTS = [method for method in METHODS if method.name.startswith("List")]


def names(message):
    return set(message.fields_by_name)


def test_every_service_that_is_defined_is_served():
    assert {s.full_name for s in DEFINED} == {s.full_name for s in SERVICES}


def test_every_method_has_a_scope_and_no_other_has():
    assert {full_name(method) for method in METHODS} == set(SCOPES)


@pytest.mark.parametrize("method", METHODS, ids=full_name)
def test_reading_takes_read_checks_and_watches_check_keys_operations_and_audit_admin_and_the_rest_write(method):
    expected = Scope.WRITE
    if method.containing_service.name in ("OperationsService", "ApiKeyService", "AuditService"):
        expected = Scope.ADMIN
    elif method.containing_service.name in ("PermissionService", "WatchService"):
        expected = Scope.CHECK
    elif method.name == "GetSecretSetting":
        expected = Scope.ADMIN
    elif method.name.startswith(("Get", "List")):
        expected = Scope.READ
    assert SCOPES[full_name(method)] is expected


@pytest.mark.parametrize("method", METHODS, ids=full_name)
def test_requests_responses_and_tokens_are_named_as_everywhere(method):
    assert method.input_type.name == f"{method.name}Request"
    assert method.output_type.name == f"{method.name}Response"
    assert ("token" in names(method.output_type)) == (method.name not in WITHOUT_TOKEN)
    assert ("tenant_id" in names(method.input_type)) == (method.name not in NOT_OF_ONE_TENANT)


@pytest.mark.parametrize("method", WRITES, ids=full_name)
def test_every_mutation_can_be_repeated_and_tried_out(method):
    assert names(method.input_type) >= {"request_id", "validate_only"}


@pytest.mark.parametrize("method", LISTS, ids=full_name)
def test_every_list_is_paged(method):
    assert names(method.input_type) >= {"page_size", "page_token", "order_by", "filter"}
    assert "next_page_token" in names(method.output_type)


def test_every_reason_has_its_enum_value():
    assert {f"ERROR_REASON_{reason}" for reason in Reason} <= set(errors_pb2.ErrorReason.keys())


@pytest.mark.parametrize(
    ("enum", "prefix", "kinds"),
    [
        (types_pb2.Role, "ROLE_", Role),
        (tenants_pb2.TenantStatus, "TENANT_STATUS_", TenantStatus),
        (users_pb2.UserStatus, "USER_STATUS_", UserStatus),
        (workspaces_pb2.WorkspaceKind, "WORKSPACE_KIND_", WorkspaceKind),
    ],
)
def test_enums_are_those_of_the_records(enum, prefix, kinds):
    assert set(enum.keys()) == {f"{prefix}{kind.name}" for kind in kinds} | {f"{prefix}UNSPECIFIED"}
    assert enum.Value(f"{prefix}UNSPECIFIED") == 0
