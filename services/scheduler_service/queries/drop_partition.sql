-- Drops the table of a day that was taken out of history.
--
-- $1 the day (UTC)
SELECT taskforge.drop_partition($1)
