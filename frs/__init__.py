"""Feature-Richness Score distillation of object detectors. Importing this package imports no torch."""

__version__ = "0.1.0"
