-- A condition on a row of `jobs`: no unfinished transaction has locked or changed it, for all that this
-- statement's snapshot tells: those that it lists as unfinished, and those that began after it. Most often
-- that is another replica's claim, which this one would only come too late for; whoever slips through
-- is found out by the claim.
      AND jobs.xmax <> ALL(ARRAY(SELECT pg_snapshot_xip(pg_current_snapshot())::xid))
      AND age(jobs.xmax) NOT BETWEEN 0 AND (SELECT age(pg_snapshot_xmax(pg_current_snapshot())::xid))
