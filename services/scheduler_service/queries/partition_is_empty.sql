-- Whether the table of one day of history holds no job.
SELECT NOT EXISTS (SELECT FROM taskforge.{partition}) AS is_empty
