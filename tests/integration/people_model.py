"""Users' statuses in plain Python, over all the tenants in which they hold roles, and the job that follows a change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pemba.errors import Reason
from pemba.model import UserStatus

if TYPE_CHECKING:
    from tests.integration.tenant_model import TenantModel

ACTIVE, SUSPENDED, DEACTIVATED = UserStatus.ACTIVE, UserStatus.SUSPENDED, UserStatus.DEACTIVATED
BECOMES = {"suspend_user": SUSPENDED, "activate_user": ACTIVE, "deactivate_user": DEACTIVATED}


@dataclass
class People:
    """`status` of those who were ever not active; `jobs`, whose turn it is first: how far each is done, by user."""

    status: dict[str, UserStatus] = field(default_factory=dict)
    jobs: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __deepcopy__(self, _: object) -> People:
        return self  # no mutation of a tenant changes it

    def of(self, user: str | None) -> UserStatus:
        return self.status.get(user or "", ACTIVE)

    def is_active(self, user: str) -> bool:
        return self.of(user) is ACTIVE

    def refusal(self, models: Sequence[TenantModel], change: str, user: str, given: dict[str, Any]) -> Reason | None:
        """Why a change of a status is refused, in the order of the tenants, of each the tenant's own role first."""
        now = self.of(user)
        if now is DEACTIVATED:
            return None if change == "deactivate_user" else Reason.USER_DEACTIVATED
        if now is SUSPENDED or change == "activate_user" or given.get("force"):
            return None
        for model in sorted(models, key=lambda model: model.id):
            missed = [at for at, place in model.places.items() if not place.personal]
            owned = sorted(missed) if change == "deactivate_user" else []
            for at in [model.id, *owned]:
                if model.is_last(at, user):
                    return model.stays_held(at)
        return None

    def change(self, models: Sequence[TenantModel], change: str, user: str) -> bool:
        """Carry it out; False where nothing changed."""
        becomes, now = BECOMES[change], self.of(user)
        if now is becomes:
            return False
        self.status[user] = becomes
        self.jobs.pop(user, None)
        if becomes is ACTIVE:
            for model in models:
                model.head += any(model.is_in_graph(at) for at in model.held(user))
        else:
            self.jobs[user] = ("", "")
        return True

    def step(self, models: Sequence[TenantModel]) -> str | None:
        """One step of the job whose turn it is; the tenant whose stream it is in, None for none."""
        user, done = next(iter(self.jobs.items()))
        del self.jobs[user]
        ahead = [place for place in self._held(models, user) if place > done]
        if not ahead:
            return None
        model = next(model for model in models if model.id == ahead[0][0])
        taken = [place for place in ahead if place[0] == model.id]
        if self.of(user) is DEACTIVATED:
            for _, at in taken:
                held = model.groups[at].members if at in model.groups else model.roles[at or model.id]
                del held[user]
                if at in model.places and model.places[at].personal:
                    model.forget(at)
        model.head += 1
        self.jobs[user] = taken[-1]  # behind the others
        return model.id

    def _held(self, models: Sequence[TenantModel], user: str) -> Iterator[tuple[str, str]]:
        for model in sorted(models, key=lambda model: model.id):
            yield from sorted((model.id, "" if at == model.id else at) for at in model.held(user))
