"""Removal of old jobs and files: endpoint `/clean`."""
