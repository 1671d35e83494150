"""Feature-Richness Score distillation of object detectors.

Importing this package does not import torch.
"""

__version__ = "0.2.0"
