"""The tables as SQLAlchemy sees them, for administration and browsing.

The migrations are the truth; this names the columns that the cold paths use. The hot paths have
their statements in `queries/*.sql`.
"""

from sqlalchemy import (
    ARRAY,
    JSON,
    UUID,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(schema="taskforge")

_Moment = DateTime(timezone=True)

organisations = Table(
    "organisations",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("is_operator", Boolean, nullable=False),
    Column("created_at", _Moment, nullable=False),
    Column("updated_at", _Moment, nullable=False),
    Column("disabled_at", _Moment),
    Column("max_projects", Integer),
)

projects = Table(
    "projects",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("organisation_id", UUID, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", _Moment, nullable=False),
    Column("updated_at", _Moment, nullable=False),
    Column("disabled_at", _Moment),
    Column("max_jobs_per_second", Integer),
    Column("max_unfinished_jobs", BigInteger),
    Column("max_queues", Integer),
    Column("max_lease_streams", Integer),
    Column("max_request_bytes", Integer),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("organisation_id", UUID, nullable=False),
    Column("project_id", UUID),
    Column("name", Text, nullable=False),
    Column("secret_hash", LargeBinary),
    Column("certificate_name", Text),
    Column("permissions", ARRAY(SmallInteger), nullable=False),
    Column("created_at", _Moment, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", _Moment),
    Column("revoked_at", _Moment),
    Column("last_used_at", _Moment),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("at", _Moment, nullable=False),
    Column("organisation_id", UUID),
    Column("project_id", UUID),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    Column("request_id", Text, nullable=False),
)

queues = Table(
    "queues",
    metadata,
    Column("project_id", UUID, primary_key=True),
    Column("id", UUID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("accepts_jobs", Boolean, nullable=False),
    Column("resume_at", _Moment),
    Column("max_retries", Integer),
    Column("timeout", Interval),
    Column("retry_delay", Interval),
    Column("max_retry_delay", Interval),
    Column("backoff_multiplier", Double),
    Column("retry_jitter", Double),
    Column("max_payload_bytes", Integer),
    Column("max_concurrent_jobs", Integer),
    Column("rate_limit_per_minute", Integer),
    Column("dead_letter_queue_id", UUID),
    Column("delays_by_priority", Boolean, nullable=False),
    Column("delay_low", Interval),
    Column("delay_medium", Interval),
    Column("delay_high", Interval),
    Column("delay_urgent", Interval),
    Column("created_at", _Moment, nullable=False),
    Column("updated_at", _Moment, nullable=False),
    Column("deleted_at", _Moment),
)


jobs = Table(
    "jobs",
    metadata,
    Column("project_id", UUID, primary_key=True),
    Column("id", UUID, primary_key=True),
    Column("queue_id", UUID, nullable=False),
)
"""Unfinished jobs, as far as administration counts them."""

every_job = Table(
    "every_job",
    metadata,
    Column("project_id", UUID, primary_key=True),
    Column("id", UUID, primary_key=True),
    Column("queue_id", UUID, nullable=False),
    Column("created_at", _Moment, nullable=False),
    Column("updated_at", _Moment, nullable=False),
    Column("completed_at", _Moment),
    Column("scheduled_for", _Moment),
    Column("started_at", _Moment),
    Column("timeout_at", _Moment),
    Column("cancel_requested_at", _Moment),
    Column("attempt_count", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("payload_bytes", Integer, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("timeout", Interval),
    Column("job_type", Text, nullable=False),
    Column("worker_id", Text),
    Column("payload", JSON, nullable=False),
    Column("progress", JSON),
    Column("result", JSON),
    Column("attempts", JSONB, nullable=False),
    Column("labels", JSONB),
    Column("traceparent", Text),
    Column("tracestate", Text),
    Column("origin_job_id", UUID),
    Column("origin_queue_id", UUID),
    Column("origin_failed_at", _Moment),
    Column("dead_letter_job_id", UUID),
)
"""The view over `jobs` and `job_history`."""

queue_counts = Table(
    "queue_counts",
    metadata,
    Column("project_id", UUID, primary_key=True),
    Column("queue_id", UUID, primary_key=True),
    Column("status", SmallInteger, primary_key=True),
    Column("n", BigInteger, nullable=False),
)

queue_deltas = Table(
    "queue_deltas",
    metadata,
    Column("project_id", UUID, nullable=False),
    Column("queue_id", UUID, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("n", BigInteger, nullable=False),
)
