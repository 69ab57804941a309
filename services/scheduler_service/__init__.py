"""The scheduler: promotes due jobs, rescues lost leases, enforces timeouts, keeps history."""
