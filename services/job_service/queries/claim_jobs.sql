-- Leases jobs to sessions: of the picked candidates those that are still ready and that no other
-- claim has locked, if every session may take what it was dealt.
--
-- Guarantee, of sessions: one whose current call is not the given one, that was told to take no more,
-- that was rescued and has not spoken since, or whose leases have expired, may take nothing, and none of
-- this can change until this transaction ends. One that holds nothing needs no heartbeat: its clock
-- starts here. One that another transaction has locked is left out of the answer: it must not hold up
-- the others. Unless each of them may take jobs, and may hold as many as it was dealt by, nothing is
-- leased: else the others would be given what ranks behind the jobs that fell to it. How each stands
-- comes back, so that they can be dealt anew.
-- Of jobs: status and queue are checked again under the row's lock (a redrive may have moved the job to a
-- queue with other rules), and a row locked by another claim is skipped instead of waited for; each
-- lease gets a number that no lease had before.
-- A queue with limits yields nothing unless its lock is held ($7). A claim on a queue without limits
-- shares its lock, so that the first claim under a new limit waits for those still under none.
-- One statement, so that a claim without limits is one trip to the database and back.
-- Index: sessions_pkey and jobs_held, one probe a session in each; jobs_pkey, two probes a job;
-- queues_pkey, one a queue. What keeps the planner to that also while it knows nothing of the tables is
-- the same as in `finish_jobs`: no condition on the status before the lock, and a project_id that is a
-- column of the list. All jobs are locked by one join: a lateral subquery that locks each by itself
-- takes five times as long.
--
-- $1 project_id; aligned arrays: $2 job ids, $3 the seat of each (empty: there is one seat only);
-- aligned arrays of seats, which are numbered from 1: $4 session ids, $5 worker ids, $6 the queues from
-- which their jobs were picked; $7 queues whose locks this transaction holds; aligned arrays of the
-- sessions: $8 ids, $9 call ids, $10 how many leases each may hold, as it was dealt by
WITH session AS MATERIALIZED (
    SELECT
        own.project_id,
        own.session_id,
        own.call_id = named.call_id AS is_current,
        own.must_heartbeat OR own.draining AS must_wait,
        own.expires_at,
        own.max_in_flight,
        own.max_in_flight = named.max_in_flight AS is_as_dealt,
        own.draining,
        -- No NOT EXISTS: it may be planned as a hash of all leases there are.
        coalesce((
            SELECT false
            FROM taskforge.jobs AS job
            WHERE job.project_id = $1 AND job.session_id = own.session_id AND job.status = 3
            LIMIT 1
        ), true) AS is_empty
    FROM unnest($8::uuid[], $9::uuid[], $10::integer[])
        AS named (session_id, call_id, max_in_flight)
    CROSS JOIN LATERAL (
        SELECT *
        FROM taskforge.sessions AS present
        WHERE present.project_id = $1 AND present.session_id = named.session_id
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS own
), started AS (
    UPDATE taskforge.sessions AS own
    SET expires_at = clock_timestamp() + own.lease_duration
    FROM session
    WHERE session.is_current AND NOT session.must_wait AND session.is_empty
      AND own.project_id = session.project_id AND own.session_id = session.session_id
    RETURNING own.session_id, own.expires_at
), standing AS MATERIALIZED (
    SELECT
        session.session_id,
        session.is_current,
        session.max_in_flight,
        session.draining,
        session.is_as_dealt,
        coalesce(started.expires_at, session.expires_at) AS expires_at,
        session.is_current AND NOT session.must_wait
            AND coalesce(started.expires_at, session.expires_at) > clock_timestamp() AS may_take
    FROM session
    LEFT JOIN started ON started.session_id = session.session_id
), admission AS MATERIALIZED (
    SELECT count(*) = cardinality($8::uuid[]) AS is_granted
    FROM standing
    WHERE may_take AND is_as_dealt
), open_queue AS MATERIALIZED (
    SELECT queue.id, queue.timeout
    FROM (SELECT DISTINCT unnest($6::uuid[])) AS given (id)
    CROSS JOIN LATERAL (
        SELECT * FROM taskforge.queues WHERE project_id = $1 AND id = given.id OFFSET 0
    ) AS queue
    WHERE queue.is_active AND queue.deleted_at IS NULL
      AND CASE
        WHEN queue.id = ANY($7::uuid[]) THEN true
        WHEN queue.max_concurrent_jobs IS NULL AND queue.rate_limit_per_minute IS NULL
            THEN pg_try_advisory_xact_lock_shared(hashtextextended(queue.id::text, 0))
        ELSE false
      END
), hand AS MATERIALIZED (
    SELECT $1::uuid AS project_id, given.id, seat.session_id, seat.worker_id,
        open_queue.id AS queue_id, open_queue.timeout
    FROM unnest($2::uuid[], $3::smallint[]) AS given (id, seat)
    JOIN unnest($4::uuid[], $5::text[], $6::uuid[]) WITH ORDINALITY
        AS seat (session_id, worker_id, queue_id, number)
        ON seat.number = coalesce(given.seat, 1)
    JOIN open_queue ON open_queue.id = seat.queue_id
    WHERE (SELECT is_granted FROM admission)
), locked AS MATERIALIZED (
    SELECT hand.*, candidate.status, candidate.queue_id AS present_queue_id
    FROM hand
    JOIN taskforge.jobs AS candidate
        ON candidate.project_id = hand.project_id AND candidate.id = hand.id
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
        session_id = locked.session_id,
        worker_id = locked.worker_id,
        started_at = moment.now,
        updated_at = moment.now,
        timeout_at = moment.now + coalesce(job.timeout, locked.timeout)
    FROM locked, moment
    WHERE locked.status = 1
      AND locked.present_queue_id = locked.queue_id
      AND job.project_id = locked.project_id
      AND job.id = locked.id
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
    json_build_object(
        'session_id', session_id,
        'is_current', is_current,
        'may_take', may_take,
        'is_as_dealt', is_as_dealt,
        'expires_at', (extract(epoch FROM expires_at) * 1000000)::bigint,
        'max_in_flight', max_in_flight,
        'draining', draining
    )::text,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL
FROM standing
