-- Records an administrative change.
--
-- Guarantee: it is kept or lost together with the change, whose transaction this is part of.
-- A change of a project's thing is found under the project's organisation.
-- Index: projects_pkey, where $1 is NULL.
--
-- $1 organisation_id (NULL: the project's), $2 project_id (NULL: a thing of the whole organisation),
-- $3 actor, $4 action, $5 target, $6 detail, $7 request_id
INSERT INTO taskforge.audit_log
    (organisation_id, project_id, actor, action, target, detail, request_id)
VALUES (
    coalesce(
        $1::uuid,
        (SELECT organisation_id FROM taskforge.projects WHERE id = $2::uuid)
    ),
    $2::uuid, $3::text, $4::text, $5::text, $6::jsonb, $7::text
)
