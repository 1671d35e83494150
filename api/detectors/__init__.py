"""Detectors: register or upload weights, list and delete them."""
