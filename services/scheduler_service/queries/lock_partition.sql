-- Keeps RetryJob from taking jobs out of one day of history until this transaction ends; readers go
-- on.
--
-- $1 the day (UTC)
SELECT taskforge.lock_partition($1)
