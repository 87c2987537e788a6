"""Records to tuples."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemba import projection
from pemba.model import (
    Membership,
    ObjectRef,
    Operation,
    Role,
    Share,
    ShareId,
    SubjectRef,
    TenantId,
    Tuple,
    TupleOperation,
    Workspace,
    WorkspaceId,
    WorkspaceKind,
    decode_id,
    encode_id,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TENANT = TenantId("ten_01h455vb4pex5vsknk084sn02q")
ROOT = Workspace(
    TENANT, WorkspaceId("ws_root"), None, "root", "Acme", WorkspaceKind.ROOT, None, None, None, NOW, NOW, "1"
)
CHILD = replace(ROOT, id=WorkspaceId("ws_child"), parent_id=ROOT.id, kind=WorkspaceKind.SHARED)
ALICE = SubjectRef("user", "alice@acme.example")
ROLE = Membership(TENANT, CHILD.id, ALICE, Role.OWNER, NOW, NOW, None, "1")

SHARE = Share(TENANT, ShareId("shr_1"), CHILD.id, ROOT.id, Role.ADMIN, NOW, None, NOW, "1")

ids = st.text(min_size=1, max_size=60)


@given(ids)
def test_an_encoded_id_is_in_spicedbs_alphabet_and_comes_back(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    encoded = encode_id(text)
    assert set(encoded) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=")
    assert decode_id(encoded) == text


def test_two_ids_never_become_one() -> None:
    assert encode_id("a=40b") != encode_id("a@b")


def test_the_root_hangs_from_the_tenant_and_the_others_from_their_parents() -> None:
    assert [str(t) for t in projection.workspace_tuples(ROOT)] == [
        f"workspace:{TENANT}/ws_root#tenant@tenant:{TENANT}/{TENANT}"
    ]
    assert [str(t) for t in projection.workspace_tuples(CHILD)] == [
        f"workspace:{TENANT}/ws_child#parent@workspace:{TENANT}/ws_root"
    ]


def test_what_is_archived_projects_nothing() -> None:
    assert not projection.workspace_tuples(replace(CHILD, archive_time=NOW, archived_with=CHILD.id))
    assert not projection.membership_tuples(ROLE, subject_is_active=True, object_is_archived=True)


def test_a_role_is_one_tuple_and_none_for_a_user_who_is_not_active() -> None:
    found = projection.membership_tuples(ROLE, subject_is_active=True, object_is_archived=False)
    assert [str(t) for t in found] == [f"workspace:{TENANT}/ws_child#owner@user:alice=40acme=2Eexample"]
    assert not projection.membership_tuples(ROLE, subject_is_active=False, object_is_archived=False)


def test_a_share_is_the_roster_of_the_one_under_a_relation_of_the_other_until_it_ends() -> None:
    [found] = projection.share_tuples(SHARE, either_is_archived=False)
    assert str(found) == (
        f"workspace:{TENANT}/ws_child#shared_admin@workspace:{TENANT}/ws_root#roster[expiration:2026-01-01T00:00:00Z]"
    )
    [for_ever] = projection.share_tuples(replace(SHARE, expire_time=None), either_is_archived=False)
    assert for_ever == found.plain
    assert not projection.share_tuples(SHARE, either_is_archived=True)


def test_a_tuple_and_its_expiration_come_back_from_their_text() -> None:
    [found] = projection.share_tuples(SHARE, either_is_archived=False)
    for tuple_ in (found, found.plain, replace(found, expiration=NOW.replace(microsecond=5))):
        assert Tuple.parse(str(tuple_)) == tuple_
    for text in (f"{found.plain}[expiration:]", f"{found.plain}[expiration:soon]", f"{found}x", f"{found.plain}[]"):
        with pytest.raises(ValueError, match=r"tuple|isoformat"):
            Tuple.parse(text)


def test_another_expiration_is_a_touch_and_an_end_is_a_delete_without_one() -> None:
    [found] = projection.share_tuples(SHARE, either_is_archived=False)
    later = replace(found, expiration=NOW.replace(year=2027))
    for before, after in ((found, later), (found, found.plain), (found.plain, found)):
        assert projection.difference([before], [after]) == [TupleOperation(Operation.TOUCH, after)]
    assert projection.difference([found], []) == [TupleOperation(Operation.DELETE, found.plain)]
    assert projection.difference([found], [found]) == []


def test_a_role_on_the_tenant_is_on_the_tenants_own_object() -> None:
    role = replace(ROLE, workspace_id=None, role=Role.ADMIN)
    found = projection.membership_tuples(role, subject_is_active=True, object_is_archived=False)
    assert [t.resource for t in found] == [ObjectRef("tenant", f"{TENANT}/{TENANT}")]


tuples = st.frozensets(
    st.builds(
        lambda n, r: Tuple(ObjectRef("workspace", f"t/{n}"), r, SubjectRef("user", "alice")),
        st.integers(0, 5),
        st.sampled_from(list(Role)),
    )
)


@given(tuples, tuples)
def test_a_difference_turns_what_was_into_what_is_with_deletes_first(
    before: frozenset[Tuple], after: frozenset[Tuple]
) -> None:
    operations = projection.difference(before, after)
    held = set(before)
    for operation in operations:
        (held.add if operation.operation is Operation.TOUCH else held.discard)(operation.tuple)
    assert held == after
    kinds = [operation.operation for operation in operations]
    assert kinds == sorted(kinds)  # "delete" before "touch"
    assert len({operation.tuple for operation in operations}) == len(operations)


@pytest.mark.parametrize(
    "text", ["workspace:t/w#owner@user:a=40b", "workspace:t/w#admin@group:t/g#member", "tenant:t/t#admin@api_key:t/k"]
)
def test_a_tuples_text_comes_back(text: str) -> None:
    assert str(Tuple.parse(text)) == text


@pytest.mark.parametrize("text", ["", "workspace:w#owner", "workspace#owner@user:a", "workspace:w@user:a"])
def test_what_is_no_tuple_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a tuple"):
        Tuple.parse(text)


ODD = ("zoë@acme", "a=b", "a b", "A/b#c@d")


@pytest.mark.parametrize("user", ODD)
def test_what_the_projection_encodes_is_told_in_callers_ids_again(user: str) -> None:
    subject = projection.subject_in_spicedb(TENANT, SubjectRef("user", user))
    assert projection.for_callers(TENANT, subject) == SubjectRef("user", user)
    workspace = projection.object_in_spicedb(TENANT, ObjectRef("workspace", "ws_1"))
    assert projection.for_callers(TENANT, SubjectRef(workspace.type, workspace.id)) == SubjectRef("workspace", "ws_1")


@pytest.mark.parametrize("raw", ["=62ob", "=FF", "=00", "a=0Ab", "=", "=zz"])
def test_what_pemba_never_encodes_stays_as_it_is_stored(raw: str) -> None:
    assert projection.for_callers(TENANT, SubjectRef("user", raw)) == SubjectRef("user", raw)


@pytest.mark.parametrize(
    ("resource", "owner"),
    [
        (f"{TENANT}/ws_1", TENANT),
        (f"{TENANT}/x/y", TENANT),
        (f"{TENANT}", None),
        ("ten_1/ws_1", None),
        (f"x{TENANT}/ws_1", None),
    ],
)
def test_the_tenant_of_an_objects_id_owns_its_tuples(resource: str, owner: str | None) -> None:
    assert projection.owner_of(Tuple(ObjectRef("workspace", resource), "viewer", SubjectRef("user", "eve"))) == owner
