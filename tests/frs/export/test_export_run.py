"""A job of kind `export` from the spec to the files, and the files in a process without this package."""

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from tiny import described, of
from typer.testing import CliRunner

from frs import events
from frs.cli.main import app
from frs.comparison import run_folder
from frs.cpu_load import LOADAVG
from frs.detector_spec import DescribedDetector
from frs.detectors import builder
from frs.engine import stages, trainer
from frs.errors import ExportUnsupported
from frs.evaluation import export_report
from frs.evaluation.export_report import ExportReport
from frs.export import frs_runner, onnx_file, parity, quantise, stage
from frs.export.names import FILE_NAMES
from frs.export.preprocessing import preprocessing_of
from frs.files import digest
from frs.resolved import resolve
from frs.spec import JobSpec
from frs.training.stop_request import Interrupted, StopRequest

WEIGHTS = Path(stages.__file__).parents[1] / "recipes" / "weights"


def spec(data: Path, **changes: Any) -> Any:
    [weights] = WEIGHTS.glob("shapes_teacher-*.pth")
    student = {"architecture": "gfl", "backbone": {"depth": 18, "width": 16}, "neck_channels": 48, "stacked_convs": 2}
    fields = {"kind": "export", "dataset": "tiny", "student": student | {"init": {"weights": weights.name}}}
    fields |= {"schedule": {"image_size": [96, 96]}, "export": {"calibration_images": 8}}
    return resolve(JobSpec.model_validate(fields | changes), data, WEIGHTS)


@pytest.fixture(scope="module")
def exported(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[events.Event]]:
    """Return the work folder of an export to all formats, and its events."""
    workdir, emitted = tmp_path_factory.mktemp("run"), list[events.Event]()
    all_formats = spec(data, export={"formats": [*FILE_NAMES], "calibration_images": 8})
    assert stages.run(all_formats, workdir, emitted.append, StopRequest()) == "completed"
    return workdir, emitted


@pytest.fixture
def report(exported: tuple[Path, list[events.Event]]) -> ExportReport:
    return ExportReport.model_validate_json((exported[0] / "export" / "export.json").read_bytes())


def run_file(model: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the delivered runner in its folder, without the checkout on the path."""
    command = [sys.executable, "-I", "frs_runner.py", model.name, *map(str, arguments)]
    return subprocess.run(command, cwd=model.parent, capture_output=True, text=True, timeout=60, check=False)


def test_an_export_delivers_its_files(exported: tuple[Path, list[events.Event]], report: ExportReport) -> None:
    workdir, emitted = exported
    artifacts = {event.name: event for event in of(events.Artifact, emitted)}
    assert set(artifacts) == {*FILE_NAMES.values(), "frs_runner.py", "export.json"}
    for file in report.files:
        content = (workdir / artifacts[file.name].path).read_bytes()
        assert (file.sha256, file.bytes) == (artifacts[file.name].sha256, len(content))
    [fact] = [event.values["export"] for event in of(events.Facts, emitted) if "export" in event.values]
    assert ExportReport.model_validate(fact) == report


@pytest.mark.parametrize("name", ["onnx", "onnx-no-nms"])
def test_an_fp32_file_has_the_students_boxes(name: str, report: ExportReport) -> None:
    [file] = [file for file in report.files if file.format == name]
    assert file.compared > 4
    assert (file.equal, file.missing, file.passed) == (file.compared, 0, True)
    assert file.drop == pytest.approx(0, abs=1e-6)
    assert file.metrics["bbox_mAP"] == pytest.approx(report.metrics["bbox_mAP"], abs=1e-6)
    assert file.largest_box_difference < 0.01


def test_the_int8_file_is_small_and_close(report: ExportReport) -> None:
    fp32, int8, _ = report.files
    assert int8.bytes < 0.35 * fp32.bytes
    assert abs(int8.drop) < 0.1
    assert int8.missing <= 0.2 * int8.compared
    assert report.calibration_images == 8


@pytest.mark.skipif(not LOADAVG.exists(), reason="this system has no such file")
def test_each_latency_has_the_load_of_the_machine(report: ExportReport) -> None:
    assert all(load and load > 0 for load in (report.load, *(file.load for file in report.files)))


def test_the_file_says_what_it_is(exported: tuple[Path, list[events.Event]], report: ExportReport) -> None:
    for kind, name in FILE_NAMES.items():
        entries = onnx.load(exported[0] / "export" / name).metadata_props
        metadata = {entry.key: json.loads(entry.value) for entry in entries}
        assert metadata["classes"] == list(report.classes)
        input_size = [96, 96] if kind == "onnx-no-nms" else "dynamic"
        assert (metadata["format"], metadata["image_size"], metadata["input_size"]) == (kind, [96, 96], input_size)
        assert metadata["annotations_sha256"]


def test_a_file_without_nms_takes_a_batch_and_has_no_operators_of_variable_size(
    exported: tuple[Path, list[events.Event]],
) -> None:
    path = exported[0] / "export" / "student-no-nms.onnx"
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not {"NonMaxSuppression", "NonZero", "TopK"} & operators
    session = onnxruntime.InferenceSession(path)
    images = np.random.default_rng(0).uniform(0, 255, (3, 3, 96, 96)).astype(np.float32)
    boxes, scores = session.run(["boxes", "scores"], {"images": images})
    assert boxes.shape[:2] == scores.shape[:2] == (3, boxes.shape[1])
    alone = session.run(["boxes", "scores"], {"images": images[1:2]})
    np.testing.assert_allclose(boxes[1], alone[0][0], atol=1e-3)
    np.testing.assert_allclose(scores[1], alone[1][0], atol=1e-5)


@pytest.mark.parametrize(("architecture", "batch"), [("gfl", "batch"), pytest.param("tood", 1, marks=pytest.mark.slow)])
def test_a_head_that_loops_over_its_images_takes_one(architecture: str, batch: str | int, models: Path) -> None:
    detector = builder.build(DescribedDetector.model_validate(described(architecture)), 3, models)
    preprocessing = preprocessing_of(detector.data_preprocessor, (96, 96), fixed=True)
    model = onnx_file.build_candidates_model(detector, preprocessing, {"classes": list("abc")})
    size = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert batch == (size.dim_param or size.dim_value)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert session.run(["scores"], {"images": np.zeros((1, 3, 96, 96), np.float32)})[0].shape[2] == 3


def test_a_detector_of_two_stages_has_no_file_without_nms(data: Path, tmp_path: Path) -> None:
    student = described("faster_rcnn") | {"init": "random"}
    two_stages = spec(data, student=student, export={"formats": ["onnx-no-nms"]})
    with pytest.raises(ExportUnsupported, match="Leave out the format"):
        stages.run(two_stages, tmp_path, lambda event: None, StopRequest())


def test_the_runner_scales_as_opencv() -> None:
    image = np.random.default_rng(0).integers(0, 256, (53, 70, 3), np.uint8)
    for width, height in ((40, 31), (140, 106), (70, 53), (96, 20)):
        expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR).astype(int)
        assert abs(frs_runner.resize(image, width, height) - expected).max() <= 1  # fixed point there


def test_the_runner_draws_boxes_without_torch(
    exported: tuple[Path, list[events.Event]], data: Path, tmp_path: Path
) -> None:
    model = exported[0] / "export" / "student.onnx"
    image = sorted((data / "tiny" / "val").iterdir())[0]
    completed = run_file(model, image, "--save", tmp_path / "boxes.png")
    assert completed.returncode == 0, completed.stderr
    assert "objects in" in completed.stdout
    drawn, original = (np.asarray(Image.open(path).convert("RGB")) for path in (tmp_path / "boxes.png", image))
    assert drawn.shape == original.shape
    assert (drawn != original).any()
    imports = "import sys, frs_runner; print(*{'torch', 'mmdet', 'frs', 'onnx'} & set(sys.modules))"
    completed = subprocess.run([sys.executable, "-c", imports], cwd=model.parent, capture_output=True, text=True)
    assert completed.stdout.strip() == ""


def test_the_runner_reports_images_that_it_cannot_read(
    exported: tuple[Path, list[events.Event]], data: Path, tmp_path: Path
) -> None:
    good = sorted((data / "tiny" / "val").iterdir())[0]
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:100])
    (tmp_path / "text.jpg").write_text("no image")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    names = [tmp_path / name for name in ("cut.png", "text.jpg", "bomb.png", "absent.png")]
    completed = run_file(exported[0] / "export" / "student.onnx", *names, good, "--json")
    lines = [json.loads(line) for line in completed.stdout.splitlines()]
    assert completed.returncode == 1
    assert ["error" in line for line in lines] == [True] * 4 + [False, False]
    assert "Traceback" not in completed.stderr


def test_images_of_other_shapes_are_turned_and_scaled(
    exported: tuple[Path, list[events.Event]], data: Path, tmp_path: Path
) -> None:
    source = Image.open(sorted((data / "tiny" / "val").iterdir())[0]).convert("RGB")
    turned = source.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 270 degrees to display
    turned.save(tmp_path / "turned.png", exif=exif)
    source.save(tmp_path / "upright.png")
    source.convert("L").resize((50, 131)).save(tmp_path / "grey.png")
    completed = run_file(exported[0] / "export" / "student.onnx", *sorted(tmp_path.glob("*.png")), "--json")
    grey, turned_line, upright, _ = map(json.loads, completed.stdout.splitlines())
    assert turned_line["boxes"] == upright["boxes"]
    assert np.asarray(grey["boxes"]).reshape(-1, 4).max(initial=0) <= 131


@pytest.mark.parametrize("name", ["plain.png", "deep.png", "palette.png", "alpha.png", "turned.jpg", "turned.webp"])
def test_images_are_read_as_training_reads_them(name: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (12, 20), np.uint16)
    colours = Image.fromarray((np.stack([pixels, pixels.T.reshape(12, 20), 65535 - pixels], 2) >> 8).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    images = {"deep.png": Image.fromarray(pixels), "palette.png": colours.quantize(16), "alpha.png": colours.copy()}
    images["alpha.png"].putalpha(100)
    options = {"exif": exif, "quality": 95} if "turned" in name else {}
    images.get(name, colours).save(tmp_path / name, **options)
    expected = cv2.imread(str(tmp_path / name))[:, :, ::-1]
    read = frs_runner.load_image(tmp_path / name)
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).max() <= (8 if "turned" in name else 0)  # decoders of lossy formats


def test_a_file_that_loses_too_much_is_delivered_as_failed(
    exported: tuple[Path, list[events.Event]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The INT8 file of another network loses everything; its report names the layers."""
    workdir = exported[0] / "export"
    broken = onnx.load(workdir / "student-int8.onnx")
    for tensor in broken.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and tensor.raw_data:
            tensor.raw_data = bytes(len(tensor.raw_data))

    def write_broken(source: Path, target: Path, *_: object) -> None:
        target.write_bytes(broken.SerializeToString())

    monkeypatch.setattr(quantise, "quantise", write_broken)
    monkeypatch.setattr(stage.onnx_file, "build_model", lambda *_: onnx.load(workdir / "student.onnx"))
    emitted: list[events.Event] = []
    changed = spec(data, export={"formats": ["onnx-int8"], "calibration_images": 2})
    assert stages.run(changed, tmp_path / "run", emitted.append, StopRequest()) == "completed"
    report = ExportReport.model_validate_json((tmp_path / "run" / "export" / "export.json").read_bytes())
    [file] = report.files
    assert (file.passed, report.passed, file.metrics["bbox_mAP"]) == (False, False, 0)
    assert file.missing == file.compared > 0
    assert len(file.worst_layers) == quantise.WORST_LAYERS
    losses = [layer.signal_to_noise for layer in file.worst_layers]
    assert losses == sorted(losses)
    warnings = [event.values["warnings"] for event in of(events.Facts, emitted) if "warnings" in event.values]
    assert "student-int8.onnx loses" in warnings[-1][-1]
    assert "student-int8.onnx" in {event.name for event in of(events.Artifact, emitted)}


def test_an_export_stops_on_request(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def request_stop(detector: Any, *_: object) -> onnx.ModelProto:
        stop.request()
        return onnx.ModelProto()

    stop = StopRequest()
    monkeypatch.setattr(stage.onnx_file, "build_model", request_stop)
    monkeypatch.setattr(quantise, "quantise", lambda source, target, images, progress: progress(1, 2))
    with pytest.raises(Interrupted):
        stages.run(spec(data), tmp_path / "run", lambda event: None, stop)


def test_a_full_disk_ends_the_export_with_its_code(
    exported: tuple[Path, list[events.Event]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: onnx.ModelProto, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stage.onnx_file, "build_model", lambda *_: onnx.load(exported[0] / "export" / "student.onnx"))
    monkeypatch.setattr(stage.onnx_file, "write", fail)
    emitted: list[events.Event] = []
    assert trainer.run(spec(data), tmp_path / "run", emitted.append) == 1
    assert emitted[-1].error.code == "storage_full"


def test_an_image_that_the_file_cannot_read_ends_the_export(
    exported: tuple[Path, list[events.Event]], tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(parity.ExportFailed, match=r"student\.onnx does not run on bad\.png"):
        parity.run_file(exported[0] / "export" / "student.onnx", {1: tmp_path / "bad.png"}, lambda done, total: None)


def test_a_runner_that_ends_after_the_last_image_ends_the_export(
    exported: tuple[Path, list[events.Event]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = tmp_path / "runner.py"
    answer = '{"boxes": [], "scores": [], "labels": [], "ms": 1}'
    runner.write_text(f"import sys\nsys.stdin.readline()\nprint('{answer}', flush=True)\nsys.exit('out of memory')\n")
    monkeypatch.setattr(parity, "RUNNER", runner)
    with pytest.raises(parity.ExportFailed, match=r"student\.onnx has no result: out of memory"):
        parity.run_file(exported[0] / "export" / "student.onnx", {1: runner}, lambda done, total: None)


def test_missing_packages_are_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "frs.export.stage", None)
    monkeypatch.delattr("frs.export.stage")
    with pytest.raises(ExportUnsupported) as raised:
        stages.run(spec(data), tmp_path / "run", lambda event: None, StopRequest())
    assert "frs-distill[export]" in raised.value.hint


def test_the_command_exports_a_finished_run(
    exported: tuple[Path, list[events.Event]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "trained"
    (run / "student").mkdir(parents=True)
    [weights] = WEIGHTS.glob("shapes_teacher-*.pth")
    shutil.copy(weights, run / "student" / "last.pth")
    resolved = spec(data)
    student = resolved.job.student.model_copy(update={"init": "random"})
    schedule = {"image_size": [96, 96]}
    trained = JobSpec.model_validate({"kind": "train", "dataset": "tiny", "student": student, "schedule": schedule})
    fields = {"job": trained, "student": resolved.student.model_copy(update={"description": student, "weights": None})}
    (run / run_folder.SPEC).write_text(resolved.model_copy(update=fields).model_dump_json())
    logged = [
        events.Checkpoint(
            kind="student", path="student/last.pth", sha256=digest(weights), bytes=1, step=1, epoch=1, labels=("last",)
        ),
        events.Outcome(status="succeeded"),
    ]
    (run / run_folder.EVENT_LOG).write_text("".join(f"{event.model_dump_json()}\n" for event in logged))
    monkeypatch.setattr(stage.onnx_file, "build_model", lambda *_: onnx.load(exported[0] / "export" / "student.onnx"))
    call: Callable[..., Any] = CliRunner().invoke
    result = call(app, ["export", str(run), "--format", "onnx"])
    assert result.exit_code == 0, result.output
    assert (run / "export" / "export" / "frs_runner.py").is_file()
    assert call(app, ["export", str(run), "--format", "tensorrt"]).exit_code == 2
    assert call(app, ["export", str(tmp_path)]).exit_code == 2


def test_the_files_of_a_student_that_finds_too_little_do_not_pass(
    exported: tuple[Path, list[events.Event]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_report, "LEAST_MAP", 1.1)
    monkeypatch.setattr(stage.onnx_file, "build_model", lambda *_: onnx.load(exported[0] / "export" / "student.onnx"))
    emitted = list[events.Event]()
    assert stages.run(spec(data, export={"formats": ["onnx"]}), tmp_path, emitted.append, StopRequest()) == "completed"
    report = ExportReport.model_validate_json((tmp_path / "export" / "export.json").read_bytes())
    [file] = report.files
    assert not report.passed and not file.passed
    assert str(file.nothing_to_compare).startswith("Nothing to compare: the student finds no objects")
    assert any("Nothing to compare" in event.message for event in of(events.Log, emitted) if event.level == "warning")
