-- The tables of single days of history, and whether each is a partition now: a table is none before
-- it is attached and after it was detached.
SELECT relname AS name, relispartition AS is_attached
FROM pg_catalog.pg_class
WHERE relnamespace = 'taskforge'::regnamespace
  AND relkind = 'r'
  AND relname ~ '^job_history_[0-9]{8}$'
ORDER BY relname
