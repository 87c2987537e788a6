"""What services answer: records with the token of the position they are of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from pemba.errors import Reason
from pemba.model import Tenant, Workspace

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Changed(Generic[T]):
    """The record after the change; `token` is empty where nothing changed that a check could see.

    `replayed` says that it is the stored answer to an earlier call.
    """

    record: T
    token: str
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """The record as committed, and a token of the position at which it was read."""

    record: T
    token: str


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of a list; `next_page_token` is empty on the last page, `reason` says why one is empty by decision."""

    records: tuple[T, ...]
    next_page_token: str
    token: str
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class TenantCreated:
    tenant: Tenant
    root_workspace: Workspace
    token: str
    replayed: bool = False
