"""The checks, probes and estimates that run before training."""
