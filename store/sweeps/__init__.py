"""Sweeps: a search over the fields of a job spec, by jobs; the winner is confirmed on seeds that chose nothing."""
