"""Checkpoints: metadata and file content."""
