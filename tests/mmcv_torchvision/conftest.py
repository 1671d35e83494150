"""Installs the operators before the tests import `mmcv.ops`, which loads its operators at import."""

import mmcv_torchvision  # noqa: F401
