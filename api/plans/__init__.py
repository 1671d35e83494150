"""Plans: check a job spec without submitting it, optionally with a probe on a worker."""
