"""File names of the formats. This module imports neither torch nor onnxruntime."""

from frs.spec import ExportFormat

FILE_NAMES: dict[ExportFormat, str] = {"onnx": "student.onnx", "onnx-int8": "student-int8.onnx"}
