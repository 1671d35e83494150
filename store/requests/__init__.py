"""Worker requests: short tasks that need a worker but are not jobs."""
