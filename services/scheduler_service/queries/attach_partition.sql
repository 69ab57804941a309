-- Makes the table of one day a partition of history.
--
-- Guarantee: writers of other days go on; readers wait while Postgres looks through the partition
-- that no day owns, which must hold nothing of this day.
--
-- $1 the day (UTC)
SELECT taskforge.attach_partition($1)
