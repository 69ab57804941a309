-- Finds organisations, each by its id or its name.
--
-- Guarantee: a text that is written as an id is never taken for a name.
-- Index: organisations_pkey; organisations_name_key.
--
-- $1 what was asked for, $2 the same as ids (NULL: it is a name); aligned
SELECT
    asked.text AS asked,
    organisation.id,
    organisation.disabled_at IS NOT NULL AS is_disabled,
    organisation.is_operator
FROM unnest($1::text[], $2::uuid[]) AS asked (text, id)
CROSS JOIN LATERAL (
    SELECT * FROM taskforge.organisations WHERE id = asked.id
    UNION ALL
    SELECT * FROM taskforge.organisations WHERE asked.id IS NULL AND name = asked.text
) AS organisation
