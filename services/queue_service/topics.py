"""What this service tells the other processes about."""

QUEUES_CHANGED = "queues"
"""Topic, keyed by project: what others remember of the project's queues may be wrong."""

WORK_READY = "ready"
"""Topic, keyed by queue: the queue may hand out jobs that nobody was waiting for."""
