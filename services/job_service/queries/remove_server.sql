-- Says that this replica has left, so that heartbeats send its sessions elsewhere at once.
--
-- Index: servers_pkey.
--
-- $1 server_id
DELETE FROM taskforge.servers WHERE server_id = $1
