-- Empties one day of history.
--
-- $1 the day (UTC)
SELECT taskforge.empty_partition($1)
