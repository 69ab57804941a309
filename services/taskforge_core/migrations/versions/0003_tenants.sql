-- Who may call: organisations and projects that can be switched off, quotas, API keys; and the record
-- of what administrators changed.

ALTER TABLE taskforge.organisations
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN disabled_at timestamptz,
    -- Its administrators manage the other organisations too.
    ADD COLUMN is_operator boolean NOT NULL DEFAULT false;

-- A quota that is NULL is no limit.
ALTER TABLE taskforge.projects
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN disabled_at timestamptz,
    ADD COLUMN max_jobs_per_second integer CHECK (max_jobs_per_second BETWEEN 1 AND 1000000),
    ADD COLUMN max_unfinished_jobs bigint CHECK (max_unfinished_jobs BETWEEN 1 AND 1000000000),
    ADD COLUMN max_queues integer CHECK (max_queues BETWEEN 1 AND 100000),
    ADD COLUMN max_lease_streams integer CHECK (max_lease_streams BETWEEN 1 AND 100000),
    ADD COLUMN max_request_bytes integer CHECK (max_request_bytes BETWEEN 1024 AND 67108864);

-- Credentials that do not expire by themselves unless told to. A secret has 256 random bits, so its
-- plain SHA-256 is as good as a slow hash. A key with a certificate's name has no secret: the client's
-- verified certificate is its proof.
CREATE TABLE taskforge.api_keys (
    id                uuid PRIMARY KEY,
    organisation_id   uuid NOT NULL REFERENCES taskforge.organisations,
    project_id        uuid REFERENCES taskforge.projects,  -- NULL: all projects of the organisation
    name              text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    secret_hash       bytea CHECK (length(secret_hash) = 32),
    certificate_name  text CHECK (length(certificate_name) BETWEEN 1 AND 253),
    permissions       smallint[] NOT NULL CHECK (cardinality(permissions) BETWEEN 1 AND 5),
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by        text NOT NULL,
    expires_at        timestamptz,
    revoked_at        timestamptz,
    last_used_at      timestamptz,
    CHECK (num_nonnulls(secret_hash, certificate_name) = 1)
) WITH (fillfactor = 70);
CREATE INDEX api_keys_listing ON taskforge.api_keys (organisation_id, created_at DESC, id DESC);
-- One living key a certificate, over all organisations: who proves the name gets its permissions.
CREATE UNIQUE INDEX api_keys_certificate ON taskforge.api_keys (certificate_name)
    WHERE revoked_at IS NULL AND certificate_name IS NOT NULL;
CREATE INDEX api_keys_certificates ON taskforge.api_keys (certificate_name, revoked_at DESC NULLS FIRST)
    WHERE certificate_name IS NOT NULL;

-- Who changed what, when. Written in the transaction of the change, and never changed itself.
CREATE TABLE taskforge.audit_log (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    organisation_id  uuid,  -- whose thing was changed; no foreign key: the record outlives it
    project_id       uuid,
    actor            text NOT NULL,
    action           text NOT NULL,
    target           text NOT NULL,
    detail           jsonb NOT NULL DEFAULT '{}',
    request_id       text NOT NULL DEFAULT ''
);
CREATE INDEX audit_log_listing ON taskforge.audit_log (organisation_id, id DESC);

CREATE FUNCTION taskforge.refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON taskforge.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION taskforge.refuse_change();
