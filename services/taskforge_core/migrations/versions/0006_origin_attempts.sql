-- A job whose number of attempts was not its queue's has the same number when it goes back there. NULL:
-- it follows the queue's rule.
ALTER TABLE taskforge.jobs
    ADD COLUMN origin_max_attempts integer CHECK (origin_max_attempts BETWEEN 1 AND 100);

CREATE INDEX audit_log_project ON taskforge.audit_log (organisation_id, project_id, id DESC);
