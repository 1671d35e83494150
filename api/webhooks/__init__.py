"""Webhooks: endpoints under `/webhooks`, and the sender of deliveries."""
