-- Takes an emptied day out of history. Not CONCURRENTLY, which a DEFAULT partition forbids.
--
-- $1 the day (UTC)
SELECT taskforge.detach_partition($1)
