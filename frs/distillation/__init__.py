"""Distillation: masks, distances, methods, the teacher, the adapter, calibration and diagnosis."""
