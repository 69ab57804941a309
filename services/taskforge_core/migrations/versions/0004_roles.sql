-- What the scheduler does to tables, for a role that does not own them. Each function is one command
-- that only the owner may give, about one day of history or one table; when it is right to give it,
-- and in which transaction, is the scheduler's to know (partitioning.py). They run as their owner, so
-- they look up nothing where a caller could have put something, and take no text that could be a name.

CREATE FUNCTION taskforge.partition_name(day date) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, taskforge, pg_temp AS $$
BEGIN
    IF day NOT BETWEEN '2000-01-01' AND '9999-12-30' THEN  -- infinity and BC bear no eight digits
        RAISE EXCEPTION 'history has no day %', day USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN 'job_history_' || to_char(day, 'YYYYMMDD');
END
$$;

-- Makes the table of one day, alone: no lock on the history itself is held meanwhile.
CREATE FUNCTION taskforge.create_partition(day date) RETURNS void
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, taskforge, pg_temp AS $$
BEGIN
    EXECUTE format(
        'CREATE TABLE IF NOT EXISTS taskforge.%I (LIKE taskforge.job_history INCLUDING ALL)',
        taskforge.partition_name(day)
    );
END
$$;

CREATE FUNCTION taskforge.attach_partition(day date) RETURNS void
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, taskforge, pg_temp AS $$
BEGIN
    EXECUTE format(
        'ALTER TABLE taskforge.job_history ATTACH PARTITION taskforge.%I FOR VALUES FROM (%L) TO (%L)',
        taskforge.partition_name(day),
        to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00',
        to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00'
    );
END
$$;

-- Keeps writers out of one day until the caller's transaction ends; readers go on.
CREATE FUNCTION taskforge.lock_partition(day date) RETURNS void
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, taskforge, pg_temp AS $$
BEGIN
    EXECUTE format('LOCK TABLE taskforge.%I IN SHARE MODE', taskforge.partition_name(day));
END
$$;

CREATE FUNCTION taskforge.empty_partition(day date) RETURNS void
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, taskforge, pg_temp AS $$
BEGIN
    EXECUTE format('TRUNCATE taskforge.%I', taskforge.partition_name(day));
END
$$;

-- Not CONCURRENTLY, which a DEFAULT partition forbids.
CREATE FUNCTION taskforge.detach_partition(day date) RETURNS void
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, taskforge, pg_temp AS $$
BEGIN
    EXECUTE format(
        'ALTER TABLE taskforge.job_history DETACH PARTITION taskforge.%I',
        taskforge.partition_name(day)
    );
END
$$;

CREATE FUNCTION taskforge.drop_partition(day date) RETURNS void
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, taskforge, pg_temp AS $$
BEGIN
    EXECUTE format('DROP TABLE IF EXISTS taskforge.%I', taskforge.partition_name(day));
END
$$;

-- Tells the planner what a table of this schema holds now. It waits for nobody: a table that is being
-- vacuumed is skipped.
CREATE FUNCTION taskforge.analyze_table(target regclass) RETURNS void
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, taskforge, pg_temp AS $$
DECLARE
    name text;
BEGIN
    SELECT relname INTO name
    FROM pg_class
    WHERE oid = target AND relnamespace = 'taskforge'::regnamespace AND relkind IN ('r', 'p');
    IF name IS NULL THEN
        RAISE EXCEPTION '% is no table of this schema', target USING ERRCODE = 'undefined_table';
    END IF;
    EXECUTE format('ANALYZE (SKIP_LOCKED) taskforge.%I', name);
END
$$;

-- Whoever is to call them is told so by `taskforge migrate --runtime-role`.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA taskforge FROM PUBLIC;

-- They belong to whom the tables belong, also when a superuser migrates: else they could do more than
-- is meant, and the days that they make would be somebody else's.
DO $$
DECLARE
    owner regrole := (SELECT relowner FROM pg_class WHERE oid = 'taskforge.job_history'::regclass);
    function regprocedure;
BEGIN
    FOR function IN
        SELECT oid FROM pg_proc WHERE pronamespace = 'taskforge'::regnamespace AND proowner <> owner
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO %s', function, owner);
    END LOOP;
END
$$;
