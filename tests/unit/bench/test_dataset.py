"""What is asked about: the records, what they decide, and the order of the questions."""

from __future__ import annotations

from collections import Counter

import pytest

from pemba.bench.dataset import DataSet, Question, Tenant, make, parent
from pemba.bench.questions import Questions
from pemba.model import Permission, Role

SMALL = make(tenants=3, workspaces=13, users=6, seed=1)


def one(roles: dict[tuple[int, str], Role]) -> DataSet:
    return DataSet((Tenant("acme", ("admin", "alice"), 14, roles),))


def allows(roles: dict[tuple[int, str], Role], workspace: int, permission: Permission, user: str = "alice") -> bool:
    return one(roles).allows(Question(0, workspace, permission, user))


def test_the_tree_has_a_fan_out_of_three():
    assert [parent(n) for n in range(1, 14)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4]


def test_a_role_holds_on_its_workspace_and_below_it_and_nowhere_else():
    roles = {(1, "alice"): Role.MEMBER}

    assert allows(roles, 1, Permission.EDIT)
    assert allows(roles, 13, Permission.VIEW)  # 13 is below 4, and that below 1
    assert not allows(roles, 13, Permission.ADMINISTER)
    assert not allows(roles, 2, Permission.VIEW)
    assert not allows(roles, 0, Permission.VIEW)


@pytest.mark.parametrize(
    ("role", "permissions"),
    [
        (Role.OWNER, ["own", "administer", "edit", "view"]),
        (Role.ADMIN, ["administer", "edit", "view"]),
        (Role.MEMBER, ["edit", "view"]),
        (Role.VIEWER, ["view"]),
    ],
)
def test_each_role_gives_its_permissions(role: Role, permissions: list[str]):
    assert [p for p in ("own", "administer", "edit", "view") if allows({(1, "alice"): role}, 1, Permission(p))] == (
        permissions
    )


def test_the_tenants_admin_owns_everything():
    assert allows({}, 13, Permission.OWN, "admin")


def test_the_same_seed_makes_the_same_data_set():
    assert make(tenants=2, workspaces=5, users=5, seed=7) == make(tenants=2, workspaces=5, users=5, seed=7)


def test_numbers_stand_for_every_question_once():
    every = {SMALL.question(number) for number in range(SMALL.size)}

    assert len(every) == SMALL.size == 3 * 14 * 6 * 4
    assert {SMALL.allows(question) for question in every} == {True, False}


def test_what_was_taken_is_not_handed_out_again():
    questions = Questions(SMALL, seed=1)
    taken = questions.take(500) + questions.take(SMALL.size - 500)

    assert len(set(taken)) == SMALL.size
    with pytest.raises(ValueError, match="more tenants"):
        questions.take(1)


def test_draws_by_zipfs_law_have_a_favourite_and_a_long_tail():
    drawn = Counter(Questions(make(tenants=10, workspaces=40, users=20, seed=1), seed=1).zipf(10_000))
    counts = sorted(drawn.values(), reverse=True)

    assert counts[0] > 8 * counts[20]
    assert len(drawn) > 300


def test_a_page_is_one_users_permission_on_every_workspace_below_the_root():
    first, second = Questions(SMALL, seed=1).pages(2)

    assert [question.workspace for question in first] == list(range(1, 14))
    assert len({(q.tenant, q.user, q.permission) for q in first}) == 1
    assert first[0] != second[0]
