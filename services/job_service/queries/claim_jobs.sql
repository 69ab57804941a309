-- Leases jobs to sessions: of the picked candidates those that are still ready and that no other
-- claim has locked, if every session may take what it was dealt.
--
-- Guarantee: unless every session may take jobs, and may hold as many as it was dealt by (`standing` tells
-- what that takes), nothing is leased: else the others would be given what ranks behind the jobs that fell
-- to it. How each stands comes back, so that they can be dealt anew.
-- Status and queue are checked again under the row's lock (a redrive may have moved the job to a
-- queue with other rules), and a row locked by another claim is skipped instead of waited for; each
-- lease gets a number that no lease had before.
-- A queue with limits yields nothing unless its lock is held ($8). A claim on a queue without limits
-- shares its lock, so that the first claim under a new limit waits for those still under none.
-- One statement, so that a claim without limits is one trip to the database and back.
-- Index: those of `standing`; queues_pkey, one probe a queue; jobs_pkey,
-- twice, by all jobs of a seat at once. To probe it for one job after the other takes a quarter more, to
-- lock each by a lateral subquery as well. The ids are cut out of the array where they are used: in
-- `hand` they would be copied with every row that is locked or written. What keeps the planner to these
-- indexes while it knows nothing of the tables is the same as in `finish_jobs` (a project_id that is
-- a column of the list); the CASE keeps the check of what was locked a look-up in a hash, and the status
-- and the queue from choosing the index.
--
-- $1 project_id; $2 job ids, those of one seat together; aligned arrays of seats: $3 and $4 the first and
-- the last of their jobs (from 1), $5 session ids, $6 worker ids, $7 the queues from which their jobs
-- were picked; $8 queues whose locks this transaction holds; aligned arrays of the sessions: $9 ids,
-- $10 call ids, $11 how many leases each may hold, as it was dealt by
WITH named AS MATERIALIZED (
    SELECT *
    FROM unnest($9::uuid[], $10::uuid[], $11::integer[]) AS each (session_id, call_id, max_in_flight)
),
-- part: standing
, open_queue AS MATERIALIZED (
    SELECT queue.id, queue.timeout
    FROM (SELECT DISTINCT unnest($7::uuid[])) AS given (id)
    CROSS JOIN LATERAL (
        SELECT * FROM taskforge.queues WHERE project_id = $1 AND id = given.id OFFSET 0
    ) AS queue
    WHERE queue.is_active AND queue.deleted_at IS NULL
      AND CASE
        WHEN queue.id = ANY($8::uuid[]) THEN true
        WHEN queue.max_concurrent_jobs IS NULL AND queue.rate_limit_per_minute IS NULL
            THEN pg_try_advisory_xact_lock_shared(hashtextextended(queue.id::text, 0))
        ELSE false
      END
), hand AS MATERIALIZED (
    SELECT
        $1::uuid AS project_id, seat.first_job, seat.last_job, seat.session_id, seat.worker_id,
        open_queue.id AS queue_id, open_queue.timeout
    FROM unnest($3::integer[], $4::integer[], $5::uuid[], $6::text[], $7::uuid[])
        AS seat (first_job, last_job, session_id, worker_id, queue_id)
    JOIN open_queue ON open_queue.id = seat.queue_id
    WHERE (SELECT is_granted FROM admission)
), locked AS MATERIALIZED (
    SELECT candidate.id
    FROM hand
    JOIN taskforge.jobs AS candidate
        ON candidate.project_id = hand.project_id
        AND candidate.id = ANY(($2::uuid[])[hand.first_job:hand.last_job])
    FOR UPDATE OF candidate SKIP LOCKED
), moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), leased AS (
    UPDATE taskforge.jobs AS job
    SET status = 3,
        attempt_count = job.attempt_count + 1,
        lease_seq = nextval('taskforge.lease_seq'),
        last_seq = NULL,
        last_status = NULL,
        session_id = hand.session_id,
        worker_id = hand.worker_id,
        started_at = moment.now,
        updated_at = moment.now,
        timeout_at = moment.now + coalesce(job.timeout, hand.timeout)
    FROM hand, moment
    WHERE job.project_id = hand.project_id
      AND job.id = ANY(($2::uuid[])[hand.first_job:hand.last_job])
      AND CASE
        WHEN job.id IN (SELECT id FROM locked)
            THEN job.status = 1 AND job.queue_id = hand.queue_id
      END
    RETURNING job.*
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT $1, total.queue_id, change.status, change.sign * total.n
    FROM (SELECT queue_id, count(*) AS n FROM leased GROUP BY queue_id) AS total,
        (VALUES (1, -1), (3, 1)) AS change (status, sign)
)
SELECT
    NULL AS session,
    id,
    lease_seq,
    job_type,
    payload::text AS payload,
    priority,
    max_attempts,
    attempt_count,
    (extract(epoch FROM created_at) * 1000000)::bigint AS created_at,
    (extract(epoch FROM started_at) * 1000000)::bigint AS started_at,
    (extract(epoch FROM scheduled_for) * 1000000)::bigint AS scheduled_for,
    (extract(epoch FROM timeout_at) * 1000000)::bigint AS timeout_at,
    timeout,
    progress::text AS progress,
    labels::text AS labels,
    traceparent,
    tracestate,
    origin_job_id,
    origin_queue_id,
    origin_failed_at
FROM leased
UNION ALL
SELECT
    session,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL
FROM told
