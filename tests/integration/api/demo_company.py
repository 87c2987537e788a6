"""The companies of `pemba demo` on a real Pemba, and what the plain model of each says after every change to it."""

from __future__ import annotations

import asyncio
import copy
import random
import uuid
from dataclasses import dataclass, field

import grpc

from pemba.cli.call_options import CallOptions
from pemba.cli.connection import Connection, Target
from pemba.cli.demo_load import Loaded, load
from pemba.cli.progress import Progress
from pemba.dev.demo import COMPANIES
from pemba.model import ObjectRef, Role, SubjectRef
from pemba.tokens import Signer
from pemba.v1 import memberships_pb2, permissions_pb2, types_pb2, workspaces_pb2
from tests.integration.api.conftest import ROOT_SECRET, Api
from tests.integration.people_model import People
from tests.integration.tenant_model import PERMISSIONS, Refused, TenantModel

SIGNER = Signer([ROOT_SECRET], uuid.uuid4())
USERS = sorted({user for company in COMPANIES for _, user, _ in company.assignments()})
PERMISSIONS_OF = {"workspace": ("own", "administer", "edit", "view"), "tenant": ("administer", "view")}

Ranks = dict[tuple[str, str], int]
"""The highest permission by (user, object's id); who has none is left out."""


@dataclass(frozen=True)
class Asked:
    """One lookup: on which objects of `type` the user `id` has the permission, or who has it on the object `id`."""

    way: str
    type: str
    id: str
    permission: str

    def finds(self, ranks: Ranks, types: dict[str, str]) -> list[str]:
        """What it is to find where that is so, in order."""
        least = PERMISSIONS[self.permission]
        pairs = [(user, object_) for (user, object_), rank in ranks.items() if rank >= least]
        if self.way == "subjects":
            return sorted(user for user, object_ in pairs if object_ == self.id)
        return sorted(object_ for user, object_ in pairs if user == self.id and types[object_] == self.type)


@dataclass
class History:
    """A company as the model has it, and who could do what after the change of each sequence number."""

    model: TenantModel
    states: dict[int, Ranks] = field(default_factory=dict)
    token: str = ""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def latest(self) -> int:
        return max(self.states)

    @property
    def types(self) -> dict[str, str]:
        return {self.model.id: "tenant"} | dict.fromkeys(self.model.places, "workspace")

    def record(self, seq: int) -> None:
        ranks = {(u, o): self.model.rank_in_graph(u, o) for u in USERS for o in self.types}
        self.states[seq] = {pair: rank for pair, rank in ranks.items() if rank}

    def finds(self, asked: Asked, seq: int) -> list[str]:
        """What a lookup is to find after that change."""
        return asked.finds(self.states[seq], self.types)

    def questions(self) -> list[Asked]:
        """Every lookup both ways, of each permission."""
        resources = [
            Asked("resources", type_, user, permission)
            for type_, permissions in PERMISSIONS_OF.items()
            for permission in permissions
            for user in USERS
        ]
        subjects = [
            Asked("subjects", type_, id_, permission)
            for id_, type_ in self.types.items()
            for permission in PERMISSIONS_OF[type_]
        ]
        return resources + subjects

    async def next_change(self) -> None:
        after = self.latest
        async with self.changed:
            await self.changed.wait_for(lambda: self.latest > after)


def seq_of(token: str, tenant_id: str) -> int:
    return SIGNER.positions(token).positions[tenant_id]


async def load_companies(api: Api) -> list[History]:
    """As `pemba demo` does it, with all of it in force."""
    histories = [_history(loaded) for loaded in await asyncio.to_thread(_load, api)]
    for history in histories:
        history.record(await _head(api, history.model))
    return histories


def _load(api: Api) -> list[Loaded]:
    with grpc.insecure_channel(api.endpoint) as channel:
        pemba = Connection(channel, Target(api.endpoint, api.key), CallOptions(), "")
        return [load(pemba, company, Progress("test")) for company in COMPANIES]


def _history(loaded: Loaded) -> History:
    """The model from the description alone; of what was loaded it takes the ids."""
    company, ids = loaded.company, loaded.workspace_ids
    model = TenantModel.created(loaded.tenant_id, ids[""], company.first_admin, People())
    for each in company.workspaces[1:]:
        above, _, slug = each.path.rpartition("/")
        model.next_id = ids[each.path]
        model.create_workspace(None, parent_id=ids[above], slug=slug, name=each.name, owner=None)
    for path, user, role in company.assignments():
        on = ObjectRef("tenant", model.id) if path is None else ObjectRef("workspace", ids[path])
        model.set_role(None, object=on, subject=SubjectRef("user", user), role=Role(role))
    return History(model)


async def _head(api: Api, model: TenantModel) -> int:
    """The number of the last change."""
    request = permissions_pb2.CheckRequest(
        tenant_id=model.id,
        resource=types_pb2.ObjectRef(type="tenant", id=model.id),
        permission="view",
        subject=types_pb2.SubjectRef(type="user", id=USERS[0]),
        consistency=types_pb2.Consistency(fully_consistent=True),
    )
    return seq_of((await api.permissions.Check(request, metadata=api.metadata())).token, model.id)


async def keep_changing(api: Api, history: History, rng: random.Random, stopping: asyncio.Event) -> None:
    """Grants, revokes, moves, archives and unarchives, one after the other: each takes the next number."""
    while not stopping.is_set():
        after = copy.deepcopy(history.model)
        try:
            call, request = _any_change(api, after, rng)
        except Refused:
            continue
        answer = await call(request, metadata=api.metadata())
        async with history.changed:
            history.model = after
            history.record(history.latest + 1)
            if answer.token:  # none where it changed nothing that could be seen
                assert seq_of(answer.token, after.id) == history.latest
                history.token = answer.token
            history.changed.notify_all()


def _any_change(api: Api, model: TenantModel, rng: random.Random):
    """A call of the API, done to the model already.  Raises Refused, and then that model is not to be used."""
    [make] = rng.choices((_set_role, _remove, _move, _archive, _unarchive), (5, 4, 3, 1, 2))
    return make(api, model, rng)


def _set_role(api: Api, model: TenantModel, rng: random.Random):
    on, given = _membership(model, rng)
    role = rng.choice([Role.MEMBER, Role.ADMIN] if on["object"].type == "tenant" else list(Role))
    model.set_role(None, **on, role=role)
    request = memberships_pb2.SetRoleRequest(**given, role=types_pb2.Role.Value(f"ROLE_{role.upper()}"))
    return api.memberships.SetRole, request


def _remove(api: Api, model: TenantModel, rng: random.Random):
    on, given = _membership(model, rng)
    model.remove_member(None, **on, allow_missing=False, transfer_to=None)
    return api.memberships.RemoveMember, memberships_pb2.RemoveMemberRequest(**given)


def _move(api: Api, model: TenantModel, rng: random.Random):
    place, to = rng.choices(list(model.places), k=2)
    model.move_workspace(None, place, new_parent_id=to)
    request = workspaces_pb2.MoveWorkspaceRequest(tenant_id=model.id, workspace_id=place, new_parent_id=to)
    return api.workspaces.MoveWorkspace, request


def _archive(api: Api, model: TenantModel, rng: random.Random):
    place = rng.choice(list(model.places))
    model.archive_workspace(None, place)
    request = workspaces_pb2.ArchiveWorkspaceRequest(tenant_id=model.id, workspace_id=place)
    return api.workspaces.ArchiveWorkspace, request


def _unarchive(api: Api, model: TenantModel, rng: random.Random):
    place = rng.choice([id_ for id_, place in model.places.items() if place.archived_with] or [model.root])
    model.unarchive_workspace(None, place)
    request = workspaces_pb2.UnarchiveWorkspaceRequest(tenant_id=model.id, workspace_id=place)
    return api.workspaces.UnarchiveWorkspace, request


def _membership(model: TenantModel, rng: random.Random):
    """An object and a user, for the model and for the API; one time in five the object is the tenant."""
    type_ = rng.choice(["tenant", *["workspace"] * 4])
    id_ = model.id if type_ == "tenant" else rng.choice(list(model.places))
    user = rng.choice(USERS)
    given = {
        "tenant_id": model.id,
        "object": types_pb2.ObjectRef(type=type_, id=id_),
        "subject": types_pb2.SubjectRef(type="user", id=user),
    }
    return {"object": ObjectRef(type_, id_), "subject": SubjectRef("user", user)}, given
