-- Removes job_service replicas that have not been heard of for a while.
--
-- Guarantee: the time is checked under the row's lock, so one that comes back is kept.
-- Index: none; a row a replica.
--
-- $1 for how long
DELETE FROM taskforge.servers
WHERE alive_until < clock_timestamp() - $1::interval
RETURNING server_id
