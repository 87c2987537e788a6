"""Which API key a secret is of, as a server remembers it.

What is looked up is remembered by its hash, unknown ones too, as many as there is room for.  Revoking a key, rotating
it, and deactivating its user are rows of the stream `~`, which the feed reads every 50 ms: what they are about is
forgotten then, and looked up again.  What was read before a row that the feed has told of is good for those alone who
were waiting for it, and not remembered.  When a key expires is judged at each use, by the database's clock.

While PostgreSQL is away, keys that are known stay good for as long as the feed's knowledge is, and no other gets in.
However many callers come with keys that are not known, there is one statement at a time, which asks for all of them
together, on a connection that is nobody else's.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Protocol

import structlog

from pemba.errors import PembaError, Reason, Rejected, Unauthenticated, Unavailable
from pemba.model import ApiKeyId, Credential, ObjectRef, Seq, SystemScope
from pemba.service.key_secrets import hash_of
from pemba.storage import api_keys
from pemba.storage.api_keys import FoundKey
from pemba.storage.database import Database
from pemba.telemetry import Event

MAX_KNOWN = 20_000
MAX_UNKNOWN = 50_000
MAX_WAITING = 2_000
"""Callers who wait for the next statement; it asks for all of them."""
NOTED_EVERY = timedelta(minutes=1)
"""How exactly the time of a key's last use is kept."""
WRITE_SECONDS = 5.0

_SCOPE = SystemScope("find the API keys of secrets")

log = structlog.get_logger()


class Clock(Protocol):
    """The feed: by how far PostgreSQL's clock can be, as long as what is known of it is good."""

    async def now(self) -> datetime:
        """Raises Unavailable."""


@dataclass(slots=True)
class _Known:
    found: FoundKey
    credential: Credential
    noted: datetime | None
    """The last use that is written, or about to be."""


class KnownKeys:
    """Answers for each call; `tell` it what the feed says, and `run` it beside."""

    def __init__(self, database: Database, clock: Clock, max_known: int = MAX_KNOWN, max_unknown: int = MAX_UNKNOWN):
        self._database = database
        self._clock = clock
        self._max_known = max_known
        self._max_unknown = max_unknown
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._hashes: dict[ObjectRef, set[bytes]] = {}
        """By the key and by the user that they are about."""
        self._unknown: OrderedDict[bytes, None] = OrderedDict()
        self._told = Seq(0)
        self._lives = 0
        self._waiting: dict[bytes, asyncio.Future[FoundKey | PembaError | None]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._uses: dict[ApiKeyId, datetime] = {}

    def remembers(self, secret: str) -> bool:
        """Whether the answer is there without a look at the records."""
        hash_ = hash_of(secret)
        return hash_ in self._known or hash_ in self._unknown

    async def credential(self, secret: str) -> Credential | None:
        """What the secret stands for; None where it is no key's.

        Raises Unauthenticated (KEY_REVOKED, KEY_EXPIRED), Unavailable.
        """
        now = await self._clock.now()
        hash_ = hash_of(secret)
        known = self._known.get(hash_)
        if known is not None:
            self._known.move_to_end(hash_)
        elif hash_ in self._unknown:
            self._unknown.move_to_end(hash_)
            return None
        else:
            found = await self._look_up(hash_)
            if found is None:
                return None
            known = self._known.get(hash_) or _known(found)
            now = await self._clock.now()
        _require_good(known.found, now)
        self._note_use(known, now)
        return known.credential

    def tell(self, about: Collection[ObjectRef] | None, seq: Seq) -> None:
        """As the feed's `Told`."""
        self._told = seq
        if about is None:
            self._lives += 1
            self._known.clear()
            self._hashes.clear()
            self._unknown.clear()
            return
        for each in about:
            for hash_ in tuple(self._hashes.get(each, ())):
                self._forget(hash_)

    async def run(self) -> None:
        """Write when keys were used, every five seconds until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.write_uses()

    async def write_uses(self) -> None:
        """Those since the last time; what cannot be written now is kept for the next."""
        uses, self._uses = self._uses, {}
        try:
            if uses:
                async with self._database.begin(SystemScope("when API keys were last used")) as tx:
                    await api_keys.note_uses(tx, uses)
        except PembaError as error:
            log.warning(Event.KEY_USES_NOT_WRITTEN, count=len(uses), error=error.message)
            self._uses = {**uses, **self._uses} if len(uses) <= self._max_known else self._uses

    async def _look_up(self, hash_: bytes) -> FoundKey | None:
        """With all others who wait; a statement that is under way is too early for who comes now."""
        waiting = self._waiting.get(hash_)
        if waiting is None:
            if len(self._waiting) >= MAX_WAITING:
                raise Unavailable(Reason.OVERLOADED, "too many callers come with keys that were not seen lately")
            waiting = self._waiting[hash_] = asyncio.get_running_loop().create_future()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_up_all())
        answer = await asyncio.shield(waiting)
        if isinstance(answer, PembaError):
            raise answer
        return answer

    async def _look_up_all(self) -> None:
        while self._waiting:
            asked = dict(islice(self._waiting.items(), MAX_WAITING))
            for hash_ in asked:
                del self._waiting[hash_]
            try:
                found = await self._find(asked)
                for hash_, waiting in asked.items():
                    waiting.set_result(found.get(hash_))
            except PembaError as error:
                for waiting in asked.values():
                    waiting.set_result(error)
            finally:
                for waiting in asked.values():
                    if not waiting.done():
                        waiting.set_result(Rejected())

    async def _find(self, hashes: Collection[bytes]) -> dict[bytes, FoundKey]:
        lives = self._lives
        async with self._database.single(_SCOPE) as tx:
            head, found = await api_keys.find(tx, hashes)
        if lives == self._lives and head >= self._told:
            for hash_ in hashes:
                self._remember(hash_, found.get(hash_))
        return found

    def _remember(self, hash_: bytes, found: FoundKey | None) -> None:
        if found is None:
            self._unknown[hash_] = None
            if len(self._unknown) > self._max_unknown:
                self._unknown.popitem(last=False)
            return
        self._known[hash_] = _known(found)
        for about in _about(found):
            self._hashes.setdefault(about, set()).add(hash_)
        if len(self._known) > self._max_known:
            self._forget(next(iter(self._known)))

    def _forget(self, hash_: bytes) -> None:
        known = self._known.pop(hash_)
        for about in _about(known.found):
            self._hashes[about].discard(hash_)
            if not self._hashes[about]:
                del self._hashes[about]

    def _note_use(self, known: _Known, now: datetime) -> None:
        if known.noted is None or now - known.noted >= NOTED_EVERY:
            known.noted = now
            self._uses[known.found.key.id] = now


def _known(found: FoundKey) -> _Known:
    key = found.key
    credential = Credential(f"api_key:{key.id}", frozenset(key.scopes), key.tenant_id, key.workspace_id, key.user_id)
    return _Known(found, credential, key.last_used_time)


def _about(found: FoundKey) -> list[ObjectRef]:
    about = [ObjectRef("api_key", found.key.id)]
    return about if found.key.user_id is None else [*about, ObjectRef("user", found.key.user_id)]


def _require_good(found: FoundKey, now: datetime) -> None:
    """Raises Unauthenticated (KEY_REVOKED, KEY_EXPIRED).  `now` is no earlier than the database's clock."""
    key, previous_ends = found.key, found.key.previous_secret_expire_time
    if key.revoke_time is not None:
        raise Unauthenticated(Reason.KEY_REVOKED, "authorization: the key was revoked")
    if not found.current and (previous_ends is None or previous_ends <= now):
        raise Unauthenticated(Reason.KEY_REVOKED, "authorization: the key was rotated, and has another secret now")
    if key.expire_time is not None and key.expire_time <= now:
        raise Unauthenticated(Reason.KEY_EXPIRED, "authorization: the key has expired")
