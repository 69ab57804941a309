-- Lets one transaction at a time, over all replicas, create jobs in a project that is near its quota
-- of unfinished ones.
--
-- Guarantee: until this transaction ends, no other one that has called this creates jobs in the
-- project. What there is must be counted in a later statement: this one's snapshot is older than a
-- lock that it waited for.
-- Index: none, as it reads no table.
--
-- $1 project_id
SELECT pg_advisory_xact_lock(hashtextextended('backlog ' || $1::uuid::text, 0))
