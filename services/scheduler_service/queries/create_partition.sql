-- Makes the table of one day of history, alone: no lock on the history itself is held meanwhile.
CREATE TABLE IF NOT EXISTS taskforge.{partition} (LIKE taskforge.job_history INCLUDING ALL)
