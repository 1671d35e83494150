"""Server-sent event streams of jobs, and the cache of metric curves."""
