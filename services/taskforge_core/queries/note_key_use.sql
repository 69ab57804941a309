-- Notes that keys were used, to the minute: one write a key and minute, however many calls it makes.
--
-- Index: api_keys_pkey.
--
-- $1 ids
UPDATE taskforge.api_keys
SET last_used_at = clock_timestamp()
WHERE id = ANY(ARRAY(
    SELECT id
    FROM taskforge.api_keys
    WHERE id = ANY($1::uuid[])
      AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '1 minute')
    ORDER BY id
    FOR UPDATE SKIP LOCKED
))
