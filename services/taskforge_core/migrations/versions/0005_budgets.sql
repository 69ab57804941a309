-- What holds a project's quotas: its budget of new jobs, and its open streams by an index.

-- How many jobs a project with a quota may create now: it grows by the quota each second, up to one
-- second's worth. Below zero after a batch that was larger than the quota. Unlogged: the commit of a
-- withdrawal waits for no disk, and a budget that a crash of the database emptied begins full.
CREATE UNLOGGED TABLE taskforge.job_budgets (
    project_id  uuid PRIMARY KEY,
    room        double precision NOT NULL,  -- jobs, at ...
    counted_at  timestamptz NOT NULL,       -- ... this time
    granted     integer NOT NULL CHECK (granted >= 0)  -- how many the latest withdrawal got
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- The open streams of a project. Heartbeats change none of its columns, so they write no entry.
CREATE INDEX sessions_open_streams ON taskforge.sessions (project_id) WHERE call_is_stream AND call_is_open;
