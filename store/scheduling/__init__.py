"""Scheduling: queue order, job requirements, waiting reasons, the worker registry, wake-up messages."""
