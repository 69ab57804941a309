-- Says that this replica lives, and so do its streams.
--
-- Index: servers_pkey.
--
-- $1 server_id, $2 for how long, $3 address
INSERT INTO taskforge.servers (server_id, alive_until, address)
VALUES ($1, clock_timestamp() + $2::interval, $3)
ON CONFLICT (server_id) DO UPDATE SET alive_until = excluded.alive_until
