"""Webhooks: the outbox of job events, claims of deliveries, retries and the log."""
