"""What it means that an operation is left out: questions about the store and its schema, as they are now."""

from __future__ import annotations

from typing import Any

import grpc
from authzed.api.v1 import ReadRelationshipsRequest, RelationshipFilter
from authzed.api.v1.permission_service_pb2_grpc import PermissionsServiceStub

from pemba.model import Tuple
from pemba.spicedb.client import FullyConsistent, SpiceDB
from pemba.spicedb.conversion import to_consistency, to_filter
from pemba.spicedb.errors import names_nothing, translated


async def is_stored(spicedb: SpiceDB, stored: Tuple, timeout: float) -> bool:
    """Whether there is such a tuple, conditions aside; ask after `SpiceDB.reach_head`.

    What the schema does not know cannot be stored: SpiceDB lets nothing go out of it that a tuple uses.
    Raises Unavailable, Timeout, Rejected.
    """
    return bool(await _first(spicedb, to_filter(stored), timeout))


async def has_relation(spicedb: SpiceDB, stored: Tuple, timeout: float) -> bool:
    """Whether the schema has the relation of this tuple, whatever its subject.  Raises as `is_stored`."""
    named = RelationshipFilter(resource_type=stored.resource.type, optional_relation=stored.relation)
    return await _first(spicedb, named, timeout) is not None


async def _first(spicedb: SpiceDB, named: RelationshipFilter, timeout: float) -> int | None:
    """How many are named, 1 at most; None where the schema can store no such tuple."""
    request = ReadRelationshipsRequest(
        consistency=to_consistency(FullyConsistent()), relationship_filter=named, optional_limit=1
    )
    stub: Any = PermissionsServiceStub(spicedb.channel)
    call = stub.ReadRelationships(request, timeout=timeout, metadata=spicedb.metadata)
    with translated():
        try:
            return len([found async for found in call])
        except grpc.aio.AioRpcError as error:
            if names_nothing(error):
                return None
            raise
