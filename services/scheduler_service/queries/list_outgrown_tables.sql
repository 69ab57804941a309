-- The tables that have far more rows than the planner believes: more than twice as many, and enough
-- to matter. How many there are is what the backends have reported, which they do within a second.
--
-- $1 rows that never matter
SELECT quote_ident(class.relname) AS name
FROM pg_catalog.pg_class AS class
JOIN pg_catalog.pg_stat_user_tables AS statistics ON statistics.relid = class.oid
WHERE class.relnamespace = 'taskforge'::regnamespace
  AND statistics.n_live_tup > 2 * greatest(class.reltuples, 0) + $1::bigint
