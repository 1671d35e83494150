"""State shared by the API and the workers: settings, database tables, job lifecycle, scheduling, artifacts."""
