"""The one engine for fenced transactions. Everything in this package that commits to Kafka goes through it.

`engine.py` has the steps, each once: fence, begin, send and append, flush, commit, abort, barrier. `outcomes.py` has
the loop that repeats an attempt until its outcome is settled. `proof.py` proves that a read was current. What differs
between users is a policy of each:

Commits of a task, resets, retirements, copies of a migration (`runtime/commit/`)
    fence     at a take-over and at each renewal; waits for Kafka until the worker stops
    in doubt  the journal says whether the entry behind our head has the nonce of an attempt
    proof     the first entry after a fence; a barrier where nothing is committed
Loads, replays, discards, purges (`ops/transactions.py`)
    fence     at the start, one try; at each renewal, for 60 s
    in doubt  the receipt, which is committed with the records, holds the nonce of an attempt
    proof     a barrier after each fence
`TransactionalProducer` (`producing/transactions.py`)
    fence     at the first transaction and at each renewal, one try
    in doubt  the caller is told, and may run its block again under the same event ids
    proof     nothing is read
Genesis (`runtime/restore/genesis.py`)
    fence     one try, and up to ten rounds of all steps
    in doubt  the next round finds the genesis or not
    proof     a barrier

Time-outs. Only `TransactionalProducer` limits its commit (`commit_timeout_s`): a program waits for it. Others wait for
as long as the client does, since nothing else can be done meanwhile. An abort after a failure is limited to
`ABORT_TIMEOUT_S`: the fence that follows would end the transaction as well. `flush` ends by itself, because records
expire before the transaction does (`message.timeout.ms`, `transaction.timeout.ms`). An open transaction that proves a
read gives the proof half of the transaction time-out.

When a commit may be sent: after `flush` has returned, so every record is delivered, and after the proof, where one is
due. When it may be sent again: never under the same fence. The same content is committed again only after a fence and a
look that finds no committed attempt, or, by `TransactionalProducer`, when the caller decides so.

A slow commit is one that took RENEW_SHARE of the client's retry back-off or longer: the client may have sent the
request twice, and the late one could end the next transaction. So the engine refuses to begin before the next fence. A
task renews before its next commit, so that the last one before a handoff does not wait for a renewal. A command renews
at once and looks up the receipt, because it is about to report that the records are committed.
"""
