"""Sweeps: searches over the fields of a job spec."""
