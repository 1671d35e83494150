"""Comparison of finished runs: paired runs, gains with their intervals, pictures."""
