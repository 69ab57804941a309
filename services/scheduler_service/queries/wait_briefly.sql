-- Limits this transaction: everyone who reads or writes history queues behind a lock that it waits
-- for, so it gives up soon; counting a day may take long, and nobody waits for that but RetryJob.
SELECT
    set_config('lock_timeout', '100ms', true),
    set_config('statement_timeout', '10min', true)
