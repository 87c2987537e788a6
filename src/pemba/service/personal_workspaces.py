"""Personal workspaces: one a user in a tenant, beside the tree, with that user as its only member.

Its user makes it themselves, or a system key for them; an admin of the tenant neither sees it nor makes one.
"""

from __future__ import annotations

from pemba.errors import AlreadyExists, ConcurrentUpdate, Forbidden, Reason
from pemba.model import Caller, Seq, TenantId, TenantScope, TenantStatus, UserId, Workspace
from pemba.service.archive import WORKSPACE
from pemba.service.mutation import Draft, MutationOptions, Mutations
from pemba.service.results import Changed
from pemba.service.workspace_creation import create_personal
from pemba.storage import authority, outbox, tenants, workspaces
from pemba.storage.database import TenantTransaction

ATTEMPTS = 3

_RETRIED = (Reason.PERSONAL_EXISTS, Reason.CONCURRENT_UPDATE)


class PersonalWorkspaces:
    """Makes and finds them."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations
        self._database = mutations.database
        self._signer = mutations.signer

    async def create(
        self, caller: Caller, tenant_id: TenantId, user_id: UserId, *, name: str, options: MutationOptions
    ) -> Changed[Workspace]:
        """A name of its own, or (empty) the user's.

        Raises AlreadyExists (PERSONAL_EXISTS), Forbidden (for another user), PreconditionFailed (USER_DEACTIVATED).
        """

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Workspace]:
            _require_own(caller, user_id)
            return await create_personal(tx, caller, seq, user_id, name)

        return await self._mutations.run(caller, tenant_id, options, WORKSPACE, body)

    async def ensure(
        self, caller: Caller, tenant_id: TenantId, user_id: UserId, options: MutationOptions
    ) -> tuple[Changed[Workspace], bool]:
        """The workspace, and whether this made it; where it is there already nothing is written.

        As `create`, but that somebody else may make and delete it between our looking and our making: then it looks
        again.  Raises ConcurrentUpdate (CONCURRENT_UPDATE) after three attempts.
        """
        refused: AlreadyExists | ConcurrentUpdate | None = None
        for attempt in range(ATTEMPTS):
            # What the same request_id made before is answered by the mutation.
            if attempt or not options.request_id:
                found = await self._find(caller, tenant_id, user_id)
                if found is not None:
                    return found, False
            try:
                return await self.create(caller, tenant_id, user_id, name="", options=options), True
            except (AlreadyExists, ConcurrentUpdate) as error:
                if error.reason not in _RETRIED:
                    raise
                refused = error
        raise ConcurrentUpdate(
            Reason.CONCURRENT_UPDATE,
            f"the personal workspace was made and deleted by others in each of {ATTEMPTS} attempts; try again",
            {"attempts": str(ATTEMPTS)},
        ) from refused

    async def _find(self, caller: Caller, tenant_id: TenantId, user_id: UserId) -> Changed[Workspace] | None:
        """None also where the caller may not have it: the mutation that follows refuses it, and is audited."""
        if not _is_own(caller, user_id):
            return None
        async with self._database.begin(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            tenant = await tenants.get(tx)
            if tenant is None or tenant.status is not TenantStatus.ACTIVE:
                return None
            if caller.acting_user is not None and not await authority.belongs(tx, caller.acting_user):
                return None
            workspace = await workspaces.personal(tx, user_id)
        return None if workspace is None else Changed(workspace, self._signer.token({tenant_id: head}))


def _is_own(caller: Caller, user_id: UserId) -> bool:
    return caller.is_system or caller.acting_user == user_id


def _require_own(caller: Caller, user_id: UserId) -> None:
    if not _is_own(caller, user_id):
        raise Forbidden(Reason.ROLE_MISSING, "a personal workspace is made by its user, or by a system key")
