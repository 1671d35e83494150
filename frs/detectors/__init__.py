"""Detectors: build them from descriptions, load and save weights, access dense heads, import weights files."""
