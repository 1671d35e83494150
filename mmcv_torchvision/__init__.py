"""mmcv's compiled operators, made of torch and torchvision: `import mmcv_torchvision`, then use mmcv or mmdet as usual.

Where mmcv was installed with its own compiled operators, those are used and this changes nothing.
"""

from mmcv_torchvision.extension import install
from mmcv_torchvision.unavailable import OperatorUnavailable

__all__ = ["OperatorUnavailable", "install"]

install()
