"""The engine for fenced transactions. All code of this package that commits to Kafka uses it.

`engine.py` implements the steps: fence, begin, send and append, flush, commit, abort, barrier. `outcomes.py` implements
the loop that repeats attempts until the outcome is settled. `proof.py` proves that a read was current. The users differ
in their policies:

Commits of a task, resets, retirements, copies of a migration (`runtime/commit/`)
    fence     at a take-over and at each renewal; waits for Kafka until the worker stops
    in doubt  the journal shows whether the entry after our head has the nonce of an attempt
    proof     the first entry after a fence; a barrier where nothing is committed
Loads, replays, discards, purges (`ops/transactions.py`)
    fence     at the start, one try; at each renewal, for 60 s
    in doubt  the receipt, which is committed with the records, holds the nonce of an attempt
    proof     a barrier after each fence
`TransactionalProducer` (`producing/transactions.py`)
    fence     at the first transaction and at each renewal, one try
    in doubt  the caller gets the error, and may run its block again with the same event ids
    proof     nothing is read
Genesis (`runtime/restore/genesis.py`)
    fence     one try, in each of up to ten rounds; a round that another first start fences is repeated
    in doubt  the journals have genesis entries, from any process, or they do not
    proof     a barrier
Permissions (`doctor/permissions.py`)
    fence     `try_fence`: one try, of an id that no task has
    in doubt  nothing is committed
    proof     nothing is read

Time-outs. Only `TransactionalProducer` limits its commit (`commit_timeout_s`), because a program waits for it. The
others wait as long as the client does, because they cannot do anything else meanwhile. An abort after a failure is
limited to `ABORT_TIMEOUT_S`, because the fence that follows also ends the transaction. `flush` is bounded, because
records expire before the transaction (`message.timeout.ms`, `transaction.timeout.ms`). A proof inside an open
transaction ends when half of the transaction time-out has passed since the transaction began.

When a commit may be sent: after `flush` has returned, so that every record is delivered, and after the proof, if one
is due. It is never sent again under the same fence. The same content is committed again only after a fence and a
check that finds no committed attempt. `TransactionalProducer` leaves that decision to its caller.

A slow commit is one that took RENEW_SHARE of the client's retry back-off or longer: the client may have sent the
request twice, and the late one could end the next transaction. So the engine refuses to begin before the next fence. A
task renews before its next commit, so that the last one before a handoff does not wait for a renewal. A command renews
at once and looks up the receipt, because it is about to report that the records are committed.
"""
