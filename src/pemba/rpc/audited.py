"""The reads that are audited: the only such table."""

from __future__ import annotations

ROSTERS = frozenset(
    {
        "/pemba.v1.MembershipService/ListMembers",
        "/pemba.v1.MembershipService/ListEffectiveMembers",
        "/pemba.v1.GroupService/ListGroupMembers",
        "/pemba.v1.UserService/ListUserMemberships",
        "/pemba.v1.UserService/ListUsers",
        "/pemba.v1.PermissionService/LookupSubjects",
    }
)
"""Who belongs to what: noted once they are answered."""

AUDITED_READS = ROSTERS | {
    "/pemba.v1.AuditService/ListAuditEvents",
    "/pemba.v1.AuditService/ExportAuditEvents",
}
"""Those whose refusal is audited as well.  What is not a roster records in its own transaction who reads it."""
