-- Takes the leader's lock for as long as this session lives, if nobody has it. Ask only without it:
-- each success would need a release of its own.
--
-- $1 key of the advisory lock
SELECT pg_try_advisory_lock($1) AS is_leading
