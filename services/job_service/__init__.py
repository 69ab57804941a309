"""The JobService server: enqueueing, leasing, settling and browsing jobs."""
