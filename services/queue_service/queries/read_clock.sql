-- The time by the database's clock: what a long call compares with to leave later things alone.
SELECT clock_timestamp() AS now
