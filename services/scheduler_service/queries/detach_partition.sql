-- Takes an emptied day out of history. Not CONCURRENTLY, which a DEFAULT partition forbids.
ALTER TABLE taskforge.job_history DETACH PARTITION taskforge.{partition}
