"""Random mutations of a few tenants, by a system key and on behalf of users, against a plain model of each."""

from __future__ import annotations

import asyncio
import copy
import itertools
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import grpc
import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pemba.authorizer import Authorizer
from pemba.authorizer.decisions import Decisions
from pemba.authorizer.feed import Feed
from pemba.errors import PembaError, Reason
from pemba.model import (
    MAX_USER_ID_BYTES,
    WORKSPACE_ROLES,
    Caller,
    ObjectRef,
    Role,
    Seq,
    TenantId,
    UserId,
    UserStatus,
)
from pemba.relay.relay import Relay, RelayOptions
from pemba.service.mutation import MutationOptions
from pemba.spicedb.client import SpiceDB
from tests.integration.conftest import SYSTEM
from tests.integration.people_model import People
from tests.integration.tenant_agreement import SECONDS, World, require_agreement
from tests.integration.tenant_model import Refused, TenantModel, is_group
from tests.integration.tenant_strategies import SLUGS, TEAMS, Deed, Spot, StatusDeed, deeds, rarely, subject_of, users

MAX_TENANTS = 3
COMPARE_EVERY = 8
LONG = "g"
RANK = list(WORKSPACE_ROLES)
USERS = ["alice", "bob@acme.test", "carol#admin", "dave/ops|x", "érin ürsula", "用户", "*:=2A", LONG]
SETTINGS = hypothesis.settings(
    deadline=None,
    database=None,  # the test's database of PostgreSQL is new each time: the seed repeats a run
    print_blob=True,
    derandomize=False,
    phases=[Phase.generate, Phase.shrink],
    # Steps wait for servers, and what can be drawn grows with what was made.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
REASONS = {
    Reason.NOT_FOUND, Reason.ROLE_MISSING, Reason.INVALID_FIELD, Reason.OWN_ROLE, Reason.ONLY_OWNER_MAKES_OWNERS,
    Reason.CREATOR_STAYS, Reason.LAST_OWNER, Reason.LAST_ADMIN, Reason.WORKSPACE_ARCHIVED, Reason.ROOT_WORKSPACE,
    Reason.HAS_CHILDREN, Reason.CYCLE, Reason.TOO_DEEP, Reason.SLUG_TAKEN, Reason.TENANT_SUSPENDED,
    Reason.USER_SUSPENDED, Reason.USER_DEACTIVATED, Reason.SHARE_EXISTS, Reason.PERSONAL_EXISTS,
    Reason.PERSONAL_MEMBERSHIP_FIXED, Reason.PERSONAL_KIND_FROZEN,
}  # fmt: skip


class GatedSpiceDB(SpiceDB):
    """Writes only while the gate is open."""

    def __init__(self, channel: grpc.aio.Channel, key: str, **given: Any) -> None:
        super().__init__(channel, key, **given)
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(self, *operations: Any, **given: Any) -> str:
        await self.gate.wait()
        return await super().write(*operations, **given)


@pytest.fixture
async def world(parts, database_url: str, spicedb) -> AsyncIterator[World]:
    """The services, with a relay that delivers."""
    client = GatedSpiceDB.connect(spicedb.endpoint, spicedb.key)
    relay = Relay(database_url, parts.database, client, RelayOptions())
    delivering = asyncio.create_task(relay.run())
    feed = Feed(parts.database, outage_seconds=SECONDS)
    await feed.poll()
    following = asyncio.create_task(feed.run())
    authorizer = Authorizer(parts.database, client, parts.signer, feed, Decisions(200, SECONDS), 10)
    yield World(asyncio.get_running_loop(), parts, client, authorizer, database_url)
    following.cancel()
    await asyncio.wait({following})
    relay.stop()
    await delivering
    await client.close()


class Tenants(RuleBasedStateMachine):
    """Carries out each mutation on both sides: they must agree whether it is refused, and why."""

    examples = itertools.count(1)

    def __init__(self, world: World, outcomes: Counter[tuple[str, str]]) -> None:
        super().__init__()
        self.world, self.parts, self.outcomes = world, world.parts, outcomes
        example = next(Tenants.examples)  # nobody holds anything from an earlier example
        self.users = [f"{name}~{example}" for name in USERS]
        self.users[-1] = self.users[-1].rjust(MAX_USER_ID_BYTES, LONG)
        self.people = People()
        self.models: list[TenantModel] = []
        self.tokens: dict[str, str] = {}
        self.changed: set[str] = set()
        self.mutations = 0  # since the last comparison
        self.lagging = False

    @initialize(
        cast=st.lists(st.tuples(users, st.sampled_from(WORKSPACE_ROLES)), min_size=8, max_size=8), lagging=st.booleans()
    )
    def begin(self, cast: list[tuple[str, Role]], lagging: bool) -> None:
        """Two tenants with four workspaces, four groups and roles each, and a ring of shares; the first has a chain as
        deep as may be."""
        self.lagging = lagging
        while self.world.run(self.parts.jobs.run_once()):
            pass  # what an example that failed has left
        for user in self.users:
            self.create_user(user)
        for tenant, first_admin in enumerate(self.users[:2]):
            self.create_tenant(first_admin)
            for n, actor in enumerate([None, first_admin, None, first_admin]):
                self.create_workspace(Spot(tenant, list(self.models[tenant].places)[n // 2], actor), SLUGS[n])
            for place, (user, role) in zip(list(self.models[tenant].places)[1:], cast[4 * tenant :], strict=False):
                self.set_role(Spot(tenant, place, None), user, role)
            places = list(self.models[tenant].places)[1:]
            for n, (_, role) in enumerate(cast[: len(places)]):
                self.share(Spot(tenant, places[n], None), places[n - 1], role, expires=n % 2 == 0)
            self.create_teams(tenant, cast)
        for _ in range(17):
            self.create_workspace(Spot(0, list(self.models[0].places)[-1], self.users[0]), SLUGS[0])
        for tenant, (user, _) in enumerate(cast[:2]):
            own = {"user_id": user, "name": "Own"}
            self.mutate(Deed("create_personal_workspace", Spot(tenant, "", None), (), own))

    @rule(deed=deeds, dry=rarely, steps=st.integers(0, 2))
    def mutation(self, deed: Deed | StatusDeed, dry: bool, steps: int) -> None:
        if isinstance(deed, StatusDeed):
            self.change_status(deed, dry=dry)
        else:
            self.mutate(deed, dry=dry)
        self.take_steps(steps)

    @precondition(lambda self: any(share.expires for model in self.models for share in model.shares.values()))
    @rule(most=st.integers(1, 3))
    def expiry(self, most: int) -> None:
        """Their time comes: of some shares in each tenant at once."""
        due = {m.id: [id_ for id_, share in m.shares.items() if share.expires][:most] for m in self.models}
        self.world.run(self.world.make_due([id_ for ids in due.values() for id_ in ids]))
        assert self.world.run(self.parts.expiry.run_once()) == sum(map(len, due.values()))
        for model in self.models:
            if due[model.id]:
                self.changed |= {model.shares[id_].of for id_ in due[model.id]}
                model.expire(due[model.id])
                self.mutations += 1
                head = self.parts.signer.token({TenantId(model.id): Seq(model.head)})
                self.tokens[model.id] = self.also(self.tokens[model.id], head)

    @precondition(lambda self: len(self.models) < MAX_TENANTS)
    @rule(first_admin=users)
    def create_tenant(self, first_admin: str) -> None:
        slug = f"acme-{secrets.token_hex(6)}"
        given = {"slug": slug, "name": "Acme", "first_admin": first_admin}
        create = partial(self.parts.tenants.create_tenant, **given, options=MutationOptions(method="CreateTenant"))
        assert self.outcome(create(caller(first_admin))) == (None, Reason.ROLE_MISSING)
        made, refused = self.outcome(create(caller(None)))
        if self.people.of(first_admin) is UserStatus.DEACTIVATED:
            assert refused is Reason.USER_DEACTIVATED
            return
        assert refused is None
        self.models.append(TenantModel.created(made.tenant.id, made.root_workspace.id, first_admin, self.people))
        self.tokens[made.tenant.id] = made.token

    def create_user(self, user: str) -> None:
        given = {"email": "", "display_name": "", "first_workspace": None}
        create = self.parts.users.create_user(
            SYSTEM, UserId(user), **given, options=MutationOptions(method="CreateUser")
        )
        assert self.outcome(create)[1] is None

    def create_workspace(self, spot: Spot, slug: str) -> None:
        given = {"parent_id": spot.object, "slug": slug, "name": slug, "owner": None}
        self.mutate(Deed("create_workspace", spot, (), given))

    def create_teams(self, tenant: int, cast: list[tuple[str, Role]]) -> None:
        """The first has the second in it, and both have somebody and a role."""
        model = self.models[tenant]
        for slug in TEAMS[:4]:
            self.mutate(
                Deed("create_group", Spot(tenant, "", None), (), {"slug": slug, "name": slug, "external_id": ""})
            )
        first, second, *_ = self.models[tenant].groups
        for group, member in ((first, second), (first, cast[0][0]), (second, cast[1][0]), (second, cast[2][0])):
            given = {"subject": subject_of(member), "manager": not is_group(member)}
            self.mutate(Deed("add_group_member", Spot(tenant, group, None), (group,), given))
        self.set_role(Spot(tenant, list(model.places)[1], None), first, Role.ADMIN)

    def set_role(self, spot: Spot, user: str, role: Role) -> None:
        given = {"object": ObjectRef("workspace", spot.object), "subject": subject_of(user), "role": role}
        self.mutate(Deed("set_role", spot, (), given))

    def share(self, spot: Spot, with_: str, role: Role, *, expires: bool) -> None:
        given = {"workspace_id": spot.object, "with_workspace_id": with_, "role": min(role, Role.ADMIN, key=RANK.index)}
        until = datetime.now(UTC) + timedelta(days=1) if expires else None
        self.mutate(Deed("create_share", spot, (), {**given, "expire_time": until}))

    # -- both sides ---------------------------------------------------------------------------------------

    def mutate(self, deed: Deed, *, dry: bool = False) -> None:
        """Carry it out, and on a copy of the model; `dry` validates only."""
        change, (index, _, actor), named, given = deed
        before = self.models[index]
        options = MutationOptions(method=change, request_id=secrets.token_hex(8), validate_only=dry)
        call = partial(self.service(change), caller(actor), before.id, *named, **given, options=options)
        changed, refused = self.outcome(call())
        after = copy.deepcopy(before)
        after.next_id = getattr(changed.record, "id", "") if changed else ""
        expected = expected_refusal(getattr(after, change), actor, *named, **given)
        self.outcomes[change, refused or "done"] += 1
        assert refused == expected, f"{change} gives {refused}, the model {expected}"
        if changed is None:
            return
        # Of who is not active a tuple may still be there, or not any more: it is taken out again.
        seen = after.tuples() - before.tuples() or before.tuples(whoever=True) - after.tuples(whoever=True)
        seen = bool(seen) or after.suspended != before.suspended
        if change != "set_roles" or all(self.people.is_active(one.subject.id) for one in given["assignments"]):
            assert bool(changed.token) == (seen and not dry), "a token where a check could see a change, and only there"
        if not dry:
            again = self.outcome(call())
            assert again == (replace(changed, replayed=True), None), "the same request_id, the same answer"
            self.adopt(index, after, changed.token)

    def change_status(self, deed: StatusDeed, *, dry: bool) -> None:
        """Of a user, in every tenant at once."""
        change, user, given, actor = deed
        options = MutationOptions(method=change, request_id=secrets.token_hex(8), validate_only=dry)
        call = partial(getattr(self.parts.users, change), caller(actor), UserId(user), **given, options=options)
        expected = Reason.ROLE_MISSING if actor else self.people.refusal(self.models, change, user, given)
        changed, refused = self.outcome(call())
        self.outcomes[change, refused or "done"] += 1
        assert refused == expected, f"{change} gives {refused}, the model {expected}"
        if changed is None or dry:
            return
        assert bool(changed.token) == self.people.change(self.models, change, user)
        assert self.outcome(call()) == (replace(changed, replayed=True), None), "the same request_id, the same answer"
        self.mutations += 1
        for model in self.models:
            self.changed |= model.touched_by(user)
            self.tokens[model.id] = self.also(self.tokens[model.id], changed.token)

    def take_steps(self, most: int) -> None:
        """Of the jobs that changes of statuses left."""
        for _ in range(min(most, len(self.people.jobs))):
            tenant = self.people.step(self.models)
            assert self.world.run(self.parts.jobs.run_once())
            for model in self.models:
                if model.id == tenant:
                    head = self.parts.signer.token({TenantId(model.id): Seq(model.head)})
                    self.tokens[model.id] = self.also(self.tokens[model.id], head)

    def also(self, *tokens: str) -> str:
        """A token of all that these name."""
        pairs: dict[TenantId, Seq] = {}
        for token in filter(None, tokens):
            for stream, seq in self.parts.signer.positions(token).positions.items():
                pairs[stream] = max(seq, pairs.get(stream, seq))
        return self.parts.signer.token(pairs)

    def service(self, change: str) -> Callable[..., Awaitable[Any]]:
        services = (
            *(self.parts.tenants, self.parts.workspaces, self.parts.memberships),
            *(self.parts.groups, self.parts.shares),
        )
        return next(getattr(service, change) for service in services if hasattr(service, change))

    def adopt(self, index: int, after: TenantModel, token: str) -> None:
        before, self.models[index] = self.models[index], after
        after.head += 1
        self.mutations += 1
        self.tokens[after.id] = self.also(self.tokens[after.id], token)
        objects = {*before.roles, *after.roles, *before.groups, *after.groups}
        for at in (at for at in objects if before.about(at) != after.about(at)):
            self.changed |= {at, *before.touched_by(at), *after.touched_by(at)}

    @invariant()
    def agreement(self) -> None:
        if self.mutations >= COMPARE_EVERY:
            self.compare()

    def compare(self) -> None:
        """A lagging relay begins only now to deliver, in large batches, and while the first check waits for it."""
        self.world.spicedb.gate.set()
        while self.people.jobs:
            self.take_steps(1)
        assert not self.world.run(self.parts.jobs.run_once())
        self.world.run(require_agreement(self.world, self.models, self.users, self.tokens, self.changed))
        self.changed.clear()
        self.mutations = 0
        if self.lagging:
            self.world.spicedb.gate.clear()

    def teardown(self) -> None:
        self.lagging = False
        if self.models:
            self.compare()

    def outcome(self, doing: Awaitable[Any]) -> tuple[Any, Reason | None]:
        try:
            return self.world.run(doing), None
        except PembaError as error:
            return None, error.reason


def caller(actor: str | None) -> Caller:
    return replace(SYSTEM, acting_user=actor)


def expected_refusal(predict: Callable[..., None], *arguments: Any, **given: Any) -> Reason | None:
    try:
        predict(*arguments, **given)
    except Refused as refusal:
        return refusal.reason
    return None


@pytest.mark.timeout(1800)  # shrinking a failure takes its time
@pytest.mark.parametrize(
    ("examples", "steps"), [pytest.param(3, 40, id="short"), pytest.param(80, 50, id="long", marks=pytest.mark.long)]
)
def test_random_mutations_leave_records_stream_spicedb_and_authority_equal_to_a_plain_model(
    world: World, pytestconfig: pytest.Config, say: Callable[[str], None], examples: int, steps: int
) -> None:
    seed = int(pytestconfig.getoption("--hypothesis-seed") or secrets.randbits(32))
    say(f"{examples} x {steps} steps, --hypothesis-seed={seed}")
    outcomes: Counter[tuple[str, str]] = Counter()
    machine = hypothesis.seed(seed)(lambda: Tenants(world, outcomes))
    settings = hypothesis.settings(SETTINGS, max_examples=examples, stateful_step_count=steps)
    run_state_machine_as_test(machine, settings=settings)
    say(f"{sum(outcomes.values())} mutations: {sorted(outcomes.items())}")
    if examples > 50:
        assert len(REASONS - {reason for _, reason in outcomes}) <= 1, "the mix of mutations reaches what is refused"
