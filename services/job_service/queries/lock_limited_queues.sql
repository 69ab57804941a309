-- Locks queues that have limits, for one claim at a time over all replicas.
--
-- Guarantee: a queue that comes back is this transaction's alone: no other claim on it counts or
-- leases until this one has ended. A queue that another claim holds is left out instead of waited
-- for. What runs must be counted in a later statement: this one's snapshot may be older than the lock.
-- Queues are locked in the order of the array: give them ascending.
-- Index: none, as it reads no table.
--
-- $1 queue ids
SELECT queue.id
FROM unnest($1::uuid[]) AS queue (id)
WHERE pg_try_advisory_xact_lock(hashtextextended(queue.id::text, 0))
