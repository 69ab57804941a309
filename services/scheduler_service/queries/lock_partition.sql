-- Keeps RetryJob from taking jobs out of one day of history; readers go on.
LOCK TABLE taskforge.{partition} IN SHARE MODE
