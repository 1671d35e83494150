"""Predictions of exported students on an image."""
