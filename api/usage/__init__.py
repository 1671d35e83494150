"""Disk usage: endpoint `/usage`."""
