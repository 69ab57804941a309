-- Whether this transaction alone changes partitions, until it ends.
--
-- $1 key of the advisory lock
SELECT pg_try_advisory_xact_lock($1) AS is_taken
