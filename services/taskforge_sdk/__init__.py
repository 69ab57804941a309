"""What Python programs import to use TaskForge: the clients and the worker."""
