"""Prepare the import of mmdet. Import this module before mmdet.

mmdet binds mmcv's operators and pycocotools once, when it is first imported.
"""

import io
import logging
import os
from contextlib import redirect_stdout

import faster_coco_eval
from mmengine.logging import MMLogger

import mmcv_torchvision  # noqa: F401 - mmcv's operators, if the compiled ones are not installed

faster_coco_eval.init_as_pycocotools()  # same scores, ten times faster, and no error for an empty result list

MMLogger.get_instance("frs", log_level="ERROR").setLevel(logging.ERROR)  # mmengine logs how each tensor was initialised

# Only imgaug, which nothing here uses, compiles with numba; its cache needs a home or a writable installation.
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")

with redirect_stdout(io.StringIO()):  # it prints that an optional package is missing
    import mmdet.datasets  # noqa: F401
