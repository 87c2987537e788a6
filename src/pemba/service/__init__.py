"""The rules: what a change may be, who may make it, and what it writes.

Every mutation is one transaction, and the head of its tenant is its first lock::

    BEGIN, scope            the tenant that row-level security lets this transaction see
    head_seq + 1            the lock is held to COMMIT: from here on nothing of this tenant can change under us
    idempotency             after the lock, so that a COMMIT whose answer was lost is found
    read, decide            rights, guards, the records before: all from PostgreSQL, never from SpiceDB
    write records           and compute the difference of the tuples they project to
    outbox + audit          a row for each number taken, an empty one included
    COMMIT                  then the token, and a NOTIFY that wakes the relay

Repairs are mutations as well: `reconciliation` finds where SpiceDB differs from the records, `drift` makes sure of it,
`repair` writes one row, `wanted` says what the records stand for.  What SpiceDB holds they are given by whoever puts
the parts together (`drift.Store`): nothing in this package reaches SpiceDB.

A refusal rolls all of it back, the number too, so the sequence has no gap.

What belongs to no tenant (service/global_mutation.py) begins with its idempotency row instead, takes the heads of the
tenants that it touches in the order of their ids, then users, and last the stream `~`.  Where that would be too many
tenants, and what it changes is denied already, the rest is a job (service/user_jobs.py) of ordinary mutations.
"""
