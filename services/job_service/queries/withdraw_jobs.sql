-- Takes from a project's budget of new jobs what calls want to create: all of it, or else as much as
-- there is, if that is enough for the first of them.
--
-- Guarantee: withdrawals of all replicas come one after another, each by the clock as it is when its
-- turn has come, so in any t seconds at most t + 1 seconds' worth of jobs are granted. A first call
-- that wants more than a second's worth gets it once the budget is full, and the budget goes below
-- zero by what is beyond.
-- Index: job_budgets_pkey.
--
-- $1 project_id, $2 jobs a second, $3 jobs that all calls want, $4 jobs that the first one wants
INSERT INTO taskforge.job_budgets AS budget (project_id, room, counted_at, granted)
SELECT $1::uuid, $2::integer - full_budget.granted, clock_timestamp(), full_budget.granted
FROM (
    SELECT CASE WHEN $3::integer <= $2 THEN $3 ELSE greatest($2, $4::integer) END
) AS full_budget (granted)
ON CONFLICT (project_id) DO UPDATE
SET (room, counted_at, granted) = (
    SELECT present.room - present.granted, present.now, present.granted
    FROM (
        SELECT
            filled.room,
            filled.now,
            CASE
                WHEN $3 <= filled.room THEN $3
                WHEN least($2, $4) <= filled.room THEN greatest(floor(filled.room)::integer, $4)
                ELSE 0
            END AS granted
        FROM (
            SELECT
                clock.now,
                least(
                    $2::double precision,
                    budget.room + $2 * greatest(0, extract(epoch FROM clock.now - budget.counted_at))
                ) AS room
            -- A subquery apart, so that there is one `now`.
            FROM (SELECT clock_timestamp() AS now OFFSET 0) AS clock
            OFFSET 0
        ) AS filled
    ) AS present
)
RETURNING granted, room
