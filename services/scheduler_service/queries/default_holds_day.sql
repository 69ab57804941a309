-- Whether the partition that no day owns holds jobs of a day; that day cannot get its own then.
--
-- Index: none; the partition is empty unless the scheduler was away for a week.
--
-- $1 the day (UTC)
SELECT EXISTS (
    SELECT FROM taskforge.job_history_default
    WHERE completed_at >= $1::date::timestamp AT TIME ZONE 'UTC'
      AND completed_at < ($1::date + 1)::timestamp AT TIME ZONE 'UTC'
) AS holds
