"""Comparison of several jobs: specs, curves and evaluations side by side."""
