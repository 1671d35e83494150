"""Synthetic data sets of drawn shapes in COCO layout."""
