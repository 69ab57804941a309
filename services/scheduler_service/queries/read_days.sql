-- The present UTC day by the database's clock, and the first day whose history is kept: the one in
-- which a job finished that is as old as the retention.
--
-- $1 how long finished jobs are kept
SELECT
    (moment.now AT TIME ZONE 'UTC')::date AS today,
    ((moment.now - $1::interval) AT TIME ZONE 'UTC')::date AS first_kept
FROM (SELECT clock_timestamp() AS now) AS moment
