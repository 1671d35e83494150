"""What the API and the workers both remember: settings, tables, the life of a job, artifacts, the queue."""
