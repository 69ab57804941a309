-- Makes the table of one day a partition of history.
--
-- Guarantee: writers of other days go on; readers wait while Postgres looks through the partition
-- that no day owns, which must hold nothing of this day.
ALTER TABLE taskforge.job_history
ATTACH PARTITION taskforge.{partition}
FOR VALUES FROM ('{day} 00:00:00+00') TO ('{next_day} 00:00:00+00')
