"""The companies of the demo are what their description promises."""

import re

import pytest

from pemba.dev.demo import CHECKS, COMPANIES, Company
from pemba.model import RESERVED_SLUGS, TENANT_ROLES, WORKSPACE_ROLES, is_slug

ROOT_LEVEL, DEEPEST = 0, 4

each_company = pytest.mark.parametrize("company", COMPANIES, ids=lambda company: company.slug)


def level(path: str) -> int:
    return len(path.split("/")) if path else ROOT_LEVEL


def test_three_companies_have_forty_users_altogether():
    assert len(COMPANIES) == 3
    assert len({user for company in COMPANIES for _, user, _ in company.assignments()}) == 40


@each_company
def test_a_tree_is_four_deep_with_roles_on_every_level_and_on_the_tenant(company: Company):
    assert {level(each.path) for each in company.workspaces} == set(range(DEEPEST + 1))
    levels = {None if path is None else level(path) for path, _, _ in company.assignments()}
    assert levels == {None, *range(DEEPEST + 1)}


@each_company
def test_parents_come_before_their_children_and_nothing_comes_twice(company: Company):
    paths = [each.path for each in company.workspaces]
    assert len(set(paths)) == len(paths)
    for number, path in enumerate(paths[1:], 1):
        assert path.rpartition("/")[0] in paths[:number]


@each_company
def test_slugs_and_roles_are_such_as_pemba_takes(company: Company):
    slugs = {company.slug, *(slug for each in company.workspaces for slug in each.path.split("/") if slug)}
    assert all(map(is_slug, slugs))
    assert not slugs & RESERVED_SLUGS
    for path, _, role in company.assignments():
        assert role in (TENANT_ROLES if path is None else WORKSPACE_ROLES)


@each_company
def test_a_user_has_one_role_on_an_object(company: Company):
    held = [(path, user) for path, user, _ in company.assignments()]
    assert len(set(held)) == len(held)


def test_the_checks_to_try_name_what_is_there_and_show_both_answers():
    companies = {company.slug: company for company in COMPANIES}
    everybody = {user for company in COMPANIES for _, user, _ in company.assignments()}
    for check in CHECKS:
        kind, _, name = check.resource.partition(":")
        paths = {each.path for each in companies[check.company].workspaces}
        assert name == check.company if kind == "tenant" else name.strip("/") in paths
        assert check.user in everybody
        assert re.match(r"[a-z][^\n]*[a-z]$", check.why)
    assert {check.answer for check in CHECKS} == {"ALLOWED", "DENIED"}
