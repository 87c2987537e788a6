"""Lookups agree with checks over the whole demo company, both ways, in every page size, also while it changes.

Two independent things say what is to be found: checks, and the plain model of the companies' description.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import grpc

from pemba.v1 import permissions_pb2, types_pb2
from pemba.v1.permissions_pb2 import DECISION_ALLOWED
from tests.integration.api.company import fresh, user_ref
from tests.integration.api.conftest import Api, reason_of
from tests.integration.api.demo_company import (
    PERMISSIONS_OF,
    USERS,
    Asked,
    History,
    keep_changing,
    load_companies,
    seq_of,
)

AT_ONCE = 8
PAGE_SIZES = (1, 2, 3, 7, 1000)
READERS, LOOKUPS_OF_EACH = 6, 25
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Found:
    """All pages of one lookup as one list: of a state from `first` to `last`; at its end the newest was `end`."""

    ids: list[str]
    pages: int
    first: int
    last: int
    end: int


async def look_up(
    api: Api, history: History, asked: Asked, page_size: int = 0, token: str = "", between: Callable | None = None
) -> Found:
    """Read to the end, in pages of that size (0: no limit); `between` runs after every page but the last."""
    call, request = _call(api, history.model.id, asked, page_size, token)
    ids: list[str] = []
    tokens: set[str] = set()
    pages, last = 0, -1
    while True:
        first, *items = await _answered(api, call, request)
        pages += 1
        if last < 0:  # the moment that the pages are of has passed; one change may be on its way
            last = history.latest + 1
        assert all(item.decision == DECISION_ALLOWED for item in items)
        tokens.add(first.token)
        ids += [item.resource.id if asked.way == "resources" else item.subject.id for item in items]
        if not page_size or len(items) < page_size:
            break
        assert len(items) == page_size
        request.cursor = items[-1].cursor
        if between:
            await between()
    [token_of_all] = tokens
    return Found(ids, pages, seq_of(token_of_all, history.model.id), last, history.latest)


async def _answered(api: Api, call: Callable, request) -> list:
    """The messages of a stream, asked for again while changes come faster than they are delivered."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while True:
        try:
            return [message async for message in call(request, metadata=api.metadata())]
        except grpc.aio.AioRpcError as error:
            late = reason_of(error) == "TOKEN_NOT_YET_VISIBLE"  # after two seconds, so this does not spin
            if not late or asyncio.get_running_loop().time() > deadline:
                raise


def _call(api: Api, tenant_id: str, asked: Asked, page_size: int, token: str):
    named = {"permission": asked.permission, "consistency": fresh(token), "limit": page_size}
    if asked.way == "resources":
        return api.permissions.LookupResources, permissions_pb2.LookupResourcesRequest(
            tenant_id=tenant_id, type=asked.type, subject=user_ref(asked.id), **named
        )
    return api.permissions.LookupSubjects, permissions_pb2.LookupSubjectsRequest(
        tenant_id=tenant_id,
        resource=types_pb2.ObjectRef(type=asked.type, id=asked.id),
        subject_type="user",
        **named,
    )


async def checked(api: Api, history: History) -> set[tuple[str, str, str]]:
    """Every (user, permission, object's id) that a check allows."""
    questions = [
        (user, permission, id_)
        for user in USERS
        for id_, type_ in history.types.items()
        for permission in PERMISSIONS_OF[type_]
    ]
    allowed: set[tuple[str, str, str]] = set()
    for start in range(0, len(questions), 1000):
        part = questions[start : start + 1000]
        items = [
            permissions_pb2.BatchCheckItem(
                resource=types_pb2.ObjectRef(type=history.types[id_], id=id_),
                permission=permission,
                subject=user_ref(user),
            )
            for user, permission, id_ in part
        ]
        request = permissions_pb2.BatchCheckRequest(
            tenant_id=history.model.id, items=items, consistency=types_pb2.Consistency(fully_consistent=True)
        )
        results = (await api.permissions.BatchCheck(request, metadata=api.metadata())).results
        assert not any(result.HasField("error") for result in results)
        allowed |= {asked for asked, result in zip(part, results, strict=True) if result.decision == DECISION_ALLOWED}
    return allowed


def expected(allowed: Iterable[tuple[str, str, str]], history: History, asked: Asked) -> list[str]:
    """What a lookup is to find, by the checks."""
    if asked.way == "subjects":
        return sorted(u for u, p, o in allowed if (p, o) == (asked.permission, asked.id))
    types = history.types
    return sorted(o for u, p, o in allowed if (u, p, types[o]) == (asked.id, asked.permission, asked.type))


async def all_of(doing: Iterable) -> list:
    """Their results, some at once."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(each):
        async with slots:
            return await each

    return await asyncio.gather(*(one(each) for each in doing))


async def test_z2_over_the_whole_demo_company_lookups_both_ways_say_what_checks_say(api: Api) -> None:
    for history in await load_companies(api):
        allowed = await checked(api, history)
        questions = history.questions()
        found = await all_of(look_up(api, history, asked) for asked in questions)
        for asked, each in zip(questions, found, strict=True):
            assert each.ids == expected(allowed, history, asked), asked
            assert each.ids == history.finds(asked, history.latest), asked


async def test_z2_over_the_whole_demo_company_pages_of_every_size_fit_together(api: Api) -> None:
    for history in await load_companies(api):
        by_asked = {asked: history.finds(asked, history.latest) for asked in history.questions()}
        some = {len(ids): asked for asked, ids in by_asked.items() if ids}  # one for each number found
        sizes = [(asked, size) for asked, ids in by_asked.items() if ids for size in PAGE_SIZES]
        sizes += [(asked, size) for number, asked in some.items() for size in range(1, number + 2)]
        found = await all_of(look_up(api, history, asked, size) for asked, size in sizes)
        for (asked, size), each in zip(sizes, found, strict=True):
            assert each.ids == by_asked[asked], (asked, size)
            assert each.pages == len(each.ids) // size + 1


async def test_z2_while_the_demo_company_changes_a_lookups_pages_are_of_one_state_of_it(api: Api) -> None:
    """Whatever changes between its pages, all of a lookup is what was so after one and the same change: not before the
    one that its token names, and not after the last that was on its way when the first page had come."""
    rng = random.Random(1)
    companies = await load_companies(api)
    lookups: list[tuple[History, Asked, Found]] = []

    async def read() -> None:
        for _ in range(LOOKUPS_OF_EACH):
            history = rng.choice(companies)
            asked = rng.choice([q for q in history.questions() if history.finds(q, history.latest)])
            size = rng.choice([0, 1, 2, 3, 7])
            token = rng.choice([history.token, ""])
            found = await look_up(api, history, asked, size, token, between=history.next_change)
            assert not token or found.first >= seq_of(token, history.model.id)
            lookups.append((history, asked, found))

    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for history in companies:
            tasks.create_task(keep_changing(api, history, rng, stopping))
        await asyncio.gather(*(read() for _ in range(READERS)))
        stopping.set()
    for history, asked, found in lookups:
        last = min(found.last, history.latest)
        states = [history.finds(asked, seq) for seq in range(found.first, last + 1)]
        assert found.ids in states, (asked, found)
    # of those with several pages many would have found something else by the time of the last one
    torn = [f for h, a, f in lookups if f.pages > 1 and h.finds(a, f.end) != f.ids]
    assert len(torn) > READERS * LOOKUPS_OF_EACH // 10
