"""Shapes: what is wrong with a request is said by field, all of it at once."""

import pytest

from pemba.errors import InvalidRequest
from pemba.model import Role
from pemba.rpc.validation import Fields
from pemba.v1.tenants_pb2 import UpdateTenantRequest
from pemba.v1.types_pb2 import ROLE_ADMIN, ROLE_OWNER, ROLE_UNSPECIFIED, ROLE_VIEWER, ObjectRef, SubjectRef

TYPEID = "01kafa7q0ve8x9m1t2b3c4d5e6"


def violations(read):
    """What `read(fields)` notes: field to description."""
    try:
        with Fields() as fields:
            read(fields)
    except InvalidRequest as error:
        return {v.field: v.description for v in error.violations}
    return {}


def test_every_violation_of_a_request_is_named_at_once():
    def read(fields):
        fields.tenant_id("tenant_id", "")
        fields.new_slug("slug", "admin")
        fields.name("name", "")

    assert list(violations(read)) == ["tenant_id", "slug", "name"]


def test_the_reason_of_several_violations_is_the_general_one():
    with pytest.raises(InvalidRequest) as caught, Fields() as fields:
        (fields.name("name", ""), fields.new_slug("slug", "admin"))
    assert caught.value.reason == "INVALID_FIELD"


def test_an_error_inside_the_block_is_not_hidden_by_violations():
    with pytest.raises(ZeroDivisionError), Fields() as fields:
        (fields.tenant_id("tenant_id", ""), 1 / 0)


def test_a_reserved_word_has_its_own_reason():
    with pytest.raises(InvalidRequest) as caught, Fields() as fields:
        fields.new_slug("slug", "admin")
    assert caught.value.reason == "SLUG_RESERVED"


@pytest.mark.parametrize("slug", ["ab", "Acme", "-acme", "acme-", "a" * 65, "a_b", "acme\n", "", "\u0430cme"])
def test_a_slug_that_is_none_is_refused(slug):
    assert "slug" in violations(lambda fields: fields.new_slug("slug", slug))


@pytest.mark.parametrize(
    "id_", ["", "acme", f"ws_{TYPEID}", f"ten_{TYPEID}x", f"ten_8{TYPEID[1:]}", f"ten_{TYPEID.upper()}"]
)
def test_an_id_that_is_malformed_or_of_another_kind_is_refused(id_):
    assert "ten_..." in violations(lambda fields: fields.tenant_id("tenant_id", id_))["tenant_id"]


@pytest.mark.parametrize("name", ["", "a" * 201, " a", "a ", "a\nb", "a\u202eb", "\x00"])
def test_a_name_that_cannot_be_shown_is_refused(name):
    assert "name" in violations(lambda fields: fields.name("name", name))


@pytest.mark.parametrize("name", ["a", "Ünïcode & Co. 東京", "a" * 200])
def test_a_name_is_any_printable_text(name):
    assert not violations(lambda fields: fields.name("name", name))


@pytest.mark.parametrize("path", ["", "eng", "eng/back-end"])
def test_a_path_is_slugs_below_the_root(path):
    assert not violations(lambda fields: fields.path("path", path))


@pytest.mark.parametrize(
    "path", ["/", "/eng", "eng/", "eng//backend", "eng/../eng", "Eng", "a" * 64 + "/" + "a/" * 3000]
)
def test_a_path_that_is_none_is_refused(path):
    assert "path" in violations(lambda fields: fields.path("path", path))


@pytest.mark.parametrize(("given", "read"), [(0, 100), (1, 1), (1000, 1000), (5000, 1000)])
def test_a_page_is_of_100_by_default_and_of_1000_at_most(given, read):
    with Fields() as fields:
        assert fields.page_size(given) == read


def test_a_negative_page_size_is_refused():
    assert violations(lambda fields: fields.page_size(-1)) == {"page_size": "takes 0 or more"}


@pytest.mark.parametrize("value", [ROLE_UNSPECIFIED, 99])
def test_a_role_that_is_none_is_refused_and_the_roles_are_named(value):
    assert "ROLE_VIEWER, ROLE_MEMBER" in violations(lambda fields: fields.role("role", "workspace", value))["role"]


@pytest.mark.parametrize("value", [ROLE_OWNER, ROLE_VIEWER])
def test_a_role_that_a_tenant_does_not_have_is_refused(value):
    text = violations(lambda fields: fields.role("role", "tenant", value))["role"]
    assert text == "takes a role that a tenant has: ROLE_MEMBER, ROLE_ADMIN"


def test_a_role_is_read():
    with Fields() as fields:
        assert fields.role("role", "tenant", ROLE_ADMIN) is Role.ADMIN


def test_an_unknown_type_is_refused_and_names_those_that_exist():
    ref = ObjectRef(type="document", id="1")
    text = violations(lambda fields: fields.object("resource", ref))["resource.type"]
    assert text == "there is no type 'document'; there are tenant, workspace"


def test_an_unknown_permission_is_refused_and_names_those_of_the_type():
    text = violations(lambda fields: fields.permission("permission", "tenant", "edit"))["permission"]
    assert text == "there is no permission on a tenant 'edit'; there are administer, view"


def test_an_object_takes_an_id_of_its_own_kind():
    ref = ObjectRef(type="workspace", id=f"ten_{TYPEID}")
    assert violations(lambda fields: fields.object("object", ref)) == {"object.id": "takes a workspace id, `ws_...`"}


SUBJECTS = [
    SubjectRef(type="user", id="alice"),
    SubjectRef(type="user", id="alice@acme.example#1"),
    SubjectRef(type="group", id=f"grp_{TYPEID}", relation="member"),
    SubjectRef(type="api_key", id=f"key_{TYPEID}"),
]
BAD_SUBJECTS = [
    SubjectRef(),
    SubjectRef(type="user"),
    SubjectRef(type="user", id=" alice"),
    SubjectRef(type="user", id="a" * 257),
    SubjectRef(type="user", id="alice", relation="member"),
    SubjectRef(type="group", id=f"grp_{TYPEID}"),
    SubjectRef(type="group", id=f"grp_{TYPEID}", relation="manager"),
    SubjectRef(type="group", id="staff", relation="member"),
    SubjectRef(type="api_key", id=f"key_{TYPEID}", relation="x"),
    SubjectRef(type="workspace", id=f"ws_{TYPEID}"),
]


@pytest.mark.parametrize("ref", SUBJECTS, ids=str)
def test_users_members_of_groups_and_keys_can_be_asked_about(ref):
    assert not violations(lambda fields: fields.subject("subject", ref))


@pytest.mark.parametrize("ref", BAD_SUBJECTS, ids=str)
def test_a_subject_that_is_none_is_refused(ref):
    assert violations(lambda fields: fields.subject("subject", ref))
    assert violations(lambda fields: fields.user_subject("subject", ref))


@pytest.mark.parametrize("ref", SUBJECTS[2:], ids=str)
def test_only_users_have_roles_for_now(ref):
    assert "subject.type" in violations(lambda fields: fields.user_subject("subject", ref))


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (UpdateTenantRequest(), None),
        (UpdateTenantRequest(name="A"), "A"),
        (UpdateTenantRequest(name="A", update_mask={"paths": ["name"]}), "A"),
        (UpdateTenantRequest(name="A", update_mask={"paths": ["*"]}), "A"),
    ],
)
def test_an_update_changes_what_its_mask_names_or_else_what_is_set(request_, name):
    with Fields() as fields:
        assert fields.new_name(request_) == name


def test_a_mask_with_an_unknown_path_is_refused():
    request = UpdateTenantRequest(name="A", update_mask={"paths": ["slug"]})
    assert violations(lambda fields: fields.new_name(request)) == {"update_mask": "has no field 'slug'; it takes name"}


def test_a_mask_that_would_empty_the_name_is_refused():
    request = UpdateTenantRequest(update_mask={"paths": ["name"]})
    assert "name" in violations(lambda fields: fields.new_name(request))
