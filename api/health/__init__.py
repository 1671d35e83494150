"""Health checks and version: endpoints `/health/live`, `/health/ready` and `/version`."""
