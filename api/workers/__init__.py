"""Registered workers: endpoint `/workers`."""
