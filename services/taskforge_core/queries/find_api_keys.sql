-- Finds API keys, by their ids or by the names of clients' certificates.
--
-- Guarantee: the database's clock alone says whether a key has expired. Of the keys that stand for certificates of a name it is the one that is not revoked, else
-- the one that was revoked last.
-- Index: api_keys_pkey; api_keys_certificates; organisations_pkey.
--
-- $1 ids, $2 certificate names
SELECT
    key.id,
    key.organisation_id,
    key.project_id,
    key.secret_hash,
    key.certificate_name,
    key.permissions,
    coalesce(key.expires_at <= clock_timestamp(), false) AS has_expired,
    key.revoked_at IS NOT NULL OR organisation.disabled_at IS NOT NULL AS is_revoked,
    organisation.is_operator
FROM (
    SELECT * FROM taskforge.api_keys WHERE id = ANY($1::uuid[])
    UNION ALL
    SELECT found.*
    FROM unnest($2::text[]) AS asked (name)
    CROSS JOIN LATERAL (
        SELECT * FROM taskforge.api_keys
        WHERE certificate_name = asked.name
        ORDER BY revoked_at DESC NULLS FIRST
        LIMIT 1
    ) AS found
) AS key
JOIN taskforge.organisations AS organisation ON organisation.id = key.organisation_id
