-- Lets one transaction at a time, over all replicas, open streams in a project that has a quota of
-- them.
--
-- Guarantee: until this transaction ends, no other one that has called this opens a stream in the
-- project. The open ones must be counted in a later statement: this one's snapshot is older than a
-- lock that it waited for.
-- Index: none, as it reads no table.
--
-- $1 project_id
SELECT pg_advisory_xact_lock(hashtextextended('streams ' || $1::uuid::text, 0))
