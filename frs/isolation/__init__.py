"""Isolation of processes that read untrusted files: no network, no privileges, limited resources."""
