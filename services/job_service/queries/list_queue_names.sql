-- Lists a project's queues, for routing only: every claim and insert reads the rules that it uses.
--
-- Index: queues_name, the project's range.
--
-- $1 project_id
SELECT id, name FROM taskforge.queues WHERE project_id = $1 AND deleted_at IS NULL
