"""The report of an export whose INT8 file loses too much."""

from frs.evaluation.export_report import ExportReport, FileReport, LayerLoss
from frs.evaluation.verdict import Interval

FILE = FileReport(
    format="onnx-int8",
    name="student-int8.onnx",
    sha256="0" * 64,
    bytes=3_700_000,
    metrics={"bbox_mAP": 0.4},
    drop=0.1,
    drop_interval=Interval(low=0.05, high=0.15),
    max_drop=0.005,
    passed=False,
    compared=10,
    equal=2,
    missing=1,
    largest_box_difference=3.0,
    largest_score_difference=0.2,
    latency_ms=10.25,
    threads=1,
    peak_mb=90.0,
    worst_layers=[LayerLoss(tensor="conv_7", signal_to_noise=3.0)],
)
REPORT = ExportReport(
    student_sha256=None,
    metrics={"bbox_mAP": 0.5},
    latency_ms=9.0,
    images=3,
    classes=("circle",),
    image_size=(64, 64),
    calibration_images=2,
    files=[FILE],
)
