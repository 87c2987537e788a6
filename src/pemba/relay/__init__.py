"""The relay: carries the outbox to SpiceDB, in order, and is the only one that writes relationships there.

What is authoritative: PostgreSQL.  A tenant's rows (1, 2, 3 ... without a gap) are what SpiceDB must come to hold;
`tenant_delivery.delivered_seq` is how far it is known to hold them.  Nothing else is remembered anywhere.

::

    NOTIFY (a hint) ---+
                       +--> a shard is due --> its lane, one request at a time:
    poll (guarantee) --+
                            read      due tenants, and the next batch of each       (one transaction, then closed)
                            pack      several tenants' batches into one request
                            write     WriteRelationships                            (no transaction is open)
                            record    delivered_seq, zedtoken, stamp                (one transaction)

Order.  A batch is a pure function of delivered_seq and the rows: the longest contiguous prefix within the bounds of
one row.  Rows are only appended, so whoever tries again covers at least what a lost request covered.  Within a batch
the last operation on a tuple wins, and TOUCH and DELETE may be repeated, so duplicates are harmless.

What each crash leaves behind: before the write, nothing; between write and record, tuples that the next try writes
again; after the record, nothing.

Outages.  A write without a definite answer is tried again for ever, with a jittered pause of 50 ms to 30 s; nothing is
ever given up or counted as poison because SpiceDB was away.  What SpiceDB refuses for an operation's own sake holds
up that tenant alone, with an error in the log, until the schema takes it.

One relay delivers at a time: it holds a lock on a PostgreSQL session, others stand by.  PostgreSQL ends a session that
was silent for ten seconds; eight seconds after its last answer, by a clock that runs on in a suspended machine, a relay
writes nothing more of what it had read.  That keeps two relays apart, but not from a request that was sent before:
fences in SpiceDB, for which tables and schema are ready (`relay_lease`, `definition fence`), are what will.
"""
