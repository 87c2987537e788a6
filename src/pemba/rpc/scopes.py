"""The scope that each method takes: the only such table.  A method that is not in it is not served."""

from __future__ import annotations

from pemba.errors import Forbidden, Reason
from pemba.model import Scope

SCOPES: dict[str, Scope] = {
    "/pemba.v1.PermissionService/Check": Scope.CHECK,
    "/pemba.v1.PermissionService/BatchCheck": Scope.CHECK,
    "/pemba.v1.PermissionService/CheckAll": Scope.CHECK,
    "/pemba.v1.PermissionService/LookupResources": Scope.CHECK,
    "/pemba.v1.PermissionService/LookupSubjects": Scope.CHECK,
    "/pemba.v1.TenantService/CreateTenant": Scope.WRITE,
    "/pemba.v1.TenantService/GetTenant": Scope.READ,
    "/pemba.v1.TenantService/ListTenants": Scope.READ,
    "/pemba.v1.TenantService/UpdateTenant": Scope.WRITE,
    "/pemba.v1.TenantService/SuspendTenant": Scope.WRITE,
    "/pemba.v1.TenantService/ActivateTenant": Scope.WRITE,
    "/pemba.v1.WorkspaceService/CreateWorkspace": Scope.WRITE,
    "/pemba.v1.WorkspaceService/GetWorkspace": Scope.READ,
    "/pemba.v1.WorkspaceService/ListWorkspaces": Scope.READ,
    "/pemba.v1.WorkspaceService/UpdateWorkspace": Scope.WRITE,
    "/pemba.v1.WorkspaceService/MoveWorkspace": Scope.WRITE,
    "/pemba.v1.WorkspaceService/ArchiveWorkspace": Scope.WRITE,
    "/pemba.v1.WorkspaceService/UnarchiveWorkspace": Scope.WRITE,
    "/pemba.v1.WorkspaceService/DeleteWorkspace": Scope.WRITE,
    "/pemba.v1.WorkspaceService/EnsurePersonalWorkspace": Scope.WRITE,
    "/pemba.v1.MembershipService/SetRole": Scope.WRITE,
    "/pemba.v1.MembershipService/SetRoles": Scope.WRITE,
    "/pemba.v1.MembershipService/GetMembership": Scope.READ,
    "/pemba.v1.MembershipService/RemoveMember": Scope.WRITE,
    "/pemba.v1.MembershipService/TransferOwnership": Scope.WRITE,
    "/pemba.v1.MembershipService/ListMembers": Scope.READ,
    "/pemba.v1.MembershipService/ListEffectiveMembers": Scope.READ,
    "/pemba.v1.ShareService/CreateShare": Scope.WRITE,
    "/pemba.v1.ShareService/RevokeShare": Scope.WRITE,
    "/pemba.v1.ShareService/GetShare": Scope.READ,
    "/pemba.v1.ShareService/ListShares": Scope.READ,
    "/pemba.v1.GroupService/CreateGroup": Scope.WRITE,
    "/pemba.v1.GroupService/GetGroup": Scope.READ,
    "/pemba.v1.GroupService/ListGroups": Scope.READ,
    "/pemba.v1.GroupService/UpdateGroup": Scope.WRITE,
    "/pemba.v1.GroupService/DeleteGroup": Scope.WRITE,
    "/pemba.v1.GroupService/AddGroupMember": Scope.WRITE,
    "/pemba.v1.GroupService/RemoveGroupMember": Scope.WRITE,
    "/pemba.v1.GroupService/SetGroupMembers": Scope.WRITE,
    "/pemba.v1.GroupService/ListGroupMembers": Scope.READ,
    "/pemba.v1.UserService/CreateUser": Scope.WRITE,
    "/pemba.v1.UserService/GetUser": Scope.READ,
    "/pemba.v1.UserService/ListUsers": Scope.READ,
    "/pemba.v1.UserService/UpdateUser": Scope.WRITE,
    "/pemba.v1.UserService/SuspendUser": Scope.WRITE,
    "/pemba.v1.UserService/ActivateUser": Scope.WRITE,
    "/pemba.v1.UserService/DeactivateUser": Scope.WRITE,
    "/pemba.v1.UserService/ListUserMemberships": Scope.READ,
    "/pemba.v1.UserService/SetCurrentWorkspace": Scope.WRITE,
    "/pemba.v1.UserService/GetCurrentWorkspace": Scope.READ,
    "/pemba.v1.UserService/RecordLogin": Scope.WRITE,
    "/pemba.v1.ApiKeyService/CreateApiKey": Scope.ADMIN,
    "/pemba.v1.ApiKeyService/GetApiKey": Scope.ADMIN,
    "/pemba.v1.ApiKeyService/ListApiKeys": Scope.ADMIN,
    "/pemba.v1.ApiKeyService/RevokeApiKey": Scope.ADMIN,
    "/pemba.v1.ApiKeyService/RotateApiKey": Scope.ADMIN,
    "/pemba.v1.OperationsService/GetRelayStatus": Scope.ADMIN,
    "/pemba.v1.OperationsService/Reconcile": Scope.ADMIN,
    "/pemba.v1.OperationsService/ListParkedOperations": Scope.ADMIN,
    "/pemba.v1.OperationsService/RetryParked": Scope.ADMIN,
    "/pemba.v1.OperationsService/TailOutbox": Scope.ADMIN,
}


def require_scope(held: frozenset[Scope], needed: Scope) -> None:
    """Raises Forbidden (SCOPE_MISSING), which names the scope."""
    if needed not in held:
        raise Forbidden(Reason.SCOPE_MISSING, f"the key lacks the scope `{needed}`", {"scope": needed})
