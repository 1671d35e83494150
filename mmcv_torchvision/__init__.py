"""mmcv's compiled operators, implemented with torch and torchvision.

Import `mmcv_torchvision`, then use mmcv or mmdet as usual. If mmcv is installed with its own compiled operators, those
are used and this package changes nothing.
"""

from mmcv_torchvision.extension import install
from mmcv_torchvision.unavailable import OperatorUnavailable

__all__ = ["OperatorUnavailable", "install"]

install()
