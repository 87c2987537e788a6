"""The relay: carries the outbox to SpiceDB, in order, and is the only one that writes relationships there.

What is authoritative: PostgreSQL.  A tenant's rows (1, 2, 3 ... without a gap) are what SpiceDB must come to hold;
`tenant_delivery.delivered_seq` is how far it is known to hold them, `relay_lease` who may write which shard.

::

    NOTIFY (a hint) ---+
                       +--> a shard is due --> its lane, one request at a time:
    poll (guarantee) --+
                            keep      the fence, where it is time or in doubt
                            read      the next batches of those that waited longest (one transaction, then closed)
                            write     WriteRelationships, which must find the fence (no transaction is open)
                            record    delivered_seq, zedtoken, stamp                (one transaction, if still leased)

Order.  A batch is a pure function of delivered_seq and the rows (and of what is parked, see below): the longest
contiguous prefix within the bounds of one row.  Rows are only appended, so whoever tries again covers at least what a
lost request covered.  Within a batch the last operation on a tuple wins, and TOUCH and DELETE may be repeated, so
duplicates are harmless.

Fairness.  A round of a lane is one request, and gives each tenant one batch at the most; those whose last delivery is
the longest ago come first.  So a tenant with a backlog is behind all others of its shard after each request, and one
that has waited is in the next.

Memory.  It is bounded by the number of shards, whatever the backlog: a lane holds one request, which is at most 1,000
operations, 1,000 rows and 3 MiB as the outbox holds it (`storage.delivery`), and all that is made of it in turn.  With
sixteen lanes that is 16,000 operations, some 25 MB with ids of the usual lengths; no operation is longer than 4 KiB.

Any number of relays deliver side by side.  Sixteen shards, to each of which a fixed part of the tenants belongs, are
divided among those that are connected to PostgreSQL: each holds a shared lock there, counts the others' and knows its
own place among them (`storage.wakeup`), so shares differ by one at most.  The life of a shard, in one relay:

::

            take: epoch + 1             rotate the fence
    FREE -------------------> IN DOUBT ------------------> DELIVERING
                               ^  |  ^                         |
           look every second   |  |  +-------------------------+
                               |  v    no definite answer, or the fence is not what we know
                              STOPPED
                                store lost, database lost: nothing is written, and healing is told (relay/healing.py)

    From each of them back to FREE: above its share, or asked to stop, as soon as the request under way is recorded; or
    the lease has run out or is another's, at once, and nothing more is recorded.

Leases last 15 seconds and are renewed three times in that; only the database's clock says whether one has run out.  Its
holder relies on four fifths of it, counted by CLOCK_BOOTTIME (which runs on in a suspended machine) from the moment at
which it asked.  A relay that stops frees its shards as their lanes come to rest, and the others look for free ones
every half second.

A relay to which SpiceDB is silent for two leases, while PostgreSQL is not, stands back where there are others: it is
counted no longer, and gives up its shards, until SpiceDB answers its look of every second.  Where SpiceDB is away for
all, nothing comes of it: whoever reaches it first takes the shards.

That keeps two relays apart, but not from a request that was sent before and arrives late.  Fences do (`relay.fence`):
one tuple a shard, that every write must find in SpiceDB.  It is rotated at a takeover, so that nothing of an earlier
holder lands any more; after every outcome without a definite answer, so that nothing of our own lands after its retry;
within a second after each write and each schema apply, and once a minute, so that its number tells how old a store is.
A rotation commits the next number to `relay_lease`, moves the tuple in one write that must match the value just read
(the first of a store must find none), and commits that the number landed before anything is written under it.

What a fence says (`relay.fence.judge`): ours, with the number that landed last or the one after it: well.  Another
holder's, which PostgreSQL knows: stop.  Lower, absent, or a schema that knows no fences: SpiceDB lost writes.  Higher
than PostgreSQL knows: PostgreSQL lost commits.  It is read before every rotation, after every refusal, and for all
shards every second (`relay.watch`), so that a loss is noticed although nothing is written.  After a loss of either kind
nothing is written in the shard.  One relay then declares it (`relay.healing`): another life of the store begins (and of
the database, where that lost commits), with leases and fences above all that were ever used, so that nothing of before
can land or be recorded; and SpiceDB is filled from the records, tenant by tenant, by ordinary rows
(`service.filling`).  A server answers UNAVAILABLE about a tenant until its rows are delivered, and about the others as
ever.  Whose store it is lies beside the fences: a relay that finds another installation's there ends at once.
A failover of SpiceDB's database that loses less than a second of writes can pass unseen: it needs a synchronous
standby, and the scheduled comparison finds what differs.

Besides, it carries out what changes of users' statuses leave to do (`relay.maintenance`), and compares all of SpiceDB
with the records from time to time (`relay.reconcile_schedule`).  Finding and repair themselves are mutations like any
other and lie in `service.reconciliation`, so that an operator's call does the very same: they take heads and insert
rows, which are delivered as above.

What each crash leaves behind: before the write, nothing; between write and record, tuples that the next try writes
again; after the record, nothing; a number without its rotation, which the next rotation uses.  In each case the shards
are free when the leases run out.

Outages.  A write without a definite answer is tried again for ever, with a jittered pause of 50 ms to 30 s; nothing is
ever given up or counted as poison because SpiceDB was away.

Poison.  What SpiceDB refuses for an operation's own sake is found by probes, which are writes that can never match
their precondition (`relay.probe`); where one has no definite answer nothing is known, and the round is tried again.
Then, in this order (`relay.parking`):

    look      at the fence again: nobody judges operations by another store
    park      commit what is refused, one row a tuple, if still leased, and with it what serves go by: from which
              row on, whether checks close                       (one transaction)
    write     the whole batch, less what is parked
    record    as ever; whatever was parked of a tuple of which a later operation is delivered ends with it

So a batch is a pure function of delivered_seq, the rows, and what is parked.  A crash before the parking leaves
nothing; after it, a takeover reads the parked operations with the rows and sends what the first would have sent; a
later row on a parked tuple has the last word of its batch, and is tried by itself.  Parked operations are repaired by
ordinary rows once under each schema that follows (`relay.parked_retries`), and when an operator says so.

Beside delivery, every relay carries out what changes of users' statuses left to do (relay/maintenance.py), withdraws
the shares that are due (relay/expiry.py), and repairs what is parked: mutations in PostgreSQL, which any number of
relays may try, and which reach SpiceDB as all others do.  Of each tenant the relay records when the first of its tuples
expires, as the last delivered row says (`next_expiry`): past that servers keep nothing and ask fully consistent, until
a later row is delivered.
"""
