-- Takes the project's turn to change which queue is whose dead-letter queue, until the transaction
-- ends; waits for those who have it.
--
-- Guarantee: whoever has the turn sees, in its next statement, all that those before it committed. In
-- this one it does not, since a statement's snapshot is older than a lock it waits for. So two
-- changes that would make a cycle together, and a deletion of a queue that is being named, are
-- checked one after the other. The seed keeps these locks apart from those on other things.
SELECT pg_advisory_xact_lock(
    hashtextextended(CAST(CAST(:project_id AS uuid) AS text), CAST(:seed AS bigint))
)
