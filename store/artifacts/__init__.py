"""Artifacts: storage in a folder or in object storage, backups, uploads and their unpacking."""
