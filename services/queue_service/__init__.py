"""The server of QueueService (queues, their settings and statistics) and AdminService (tenants)."""
