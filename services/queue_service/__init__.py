"""The QueueService server: queues, their settings and their statistics."""
