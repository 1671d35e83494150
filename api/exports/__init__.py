"""Exports of a job's student."""
