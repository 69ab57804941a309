-- Finds projects, each by its organisation and its id, or, without an id, the organisation's project
-- `default`.
--
-- Guarantee: a project of another organisation is found exactly as little as one that does not exist.
-- Index: projects_pkey for ids; projects_organisation_id_name_key for the others.
--
-- $1 organisations (NULL: whichever), $2 projects (NULL: the one named `default`); aligned
SELECT
    asked.place::integer AS place,
    project.id,
    project.disabled_at IS NOT NULL AS is_disabled,
    project.max_jobs_per_second,
    project.max_unfinished_jobs,
    project.max_lease_streams,
    project.max_request_bytes
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS asked (organisation_id, project_id, place)
CROSS JOIN LATERAL (
    SELECT * FROM taskforge.projects
    WHERE id = asked.project_id
      AND (asked.organisation_id IS NULL OR organisation_id = asked.organisation_id)
    UNION ALL
    SELECT * FROM taskforge.projects
    WHERE asked.project_id IS NULL AND organisation_id = asked.organisation_id AND name = 'default'
) AS project
