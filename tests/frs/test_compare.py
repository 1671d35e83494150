"""Comparisons of runs from artificial detections near the ground truth of a drawn data set; nothing is trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import job, of

from frs import events
from frs.cli import running
from frs.comparison import compare as compare_module
from frs.comparison import details as details_module
from frs.comparison import paired_runs, run_folder
from frs.comparison.details import Details
from frs.dataset import coco
from frs.errors import CheckpointUnusable, DetectionsUnusable, RunsDiffer
from frs.evaluation import detections
from frs.evaluation.coco_scores import score
from frs.evaluation.detections import Detections, pack
from frs.evaluation.report import Report
from frs.facts import RunFacts
from frs.files import digest
from frs.resolved import FinishedRun, ResolvedSpec, resolve
from frs.spec import JobSpec
from frs.training.stop_request import Interrupted, StopRequest

WriteRun = Callable[..., Path]
TEACHER = "detections-teacher.npz"


@pytest.fixture
def write_run(data: Path, models: Path, tmp_path: Path) -> WriteRun:
    """Return the function that writes the work folder of a finished run whose boxes are off by `noise` pixels."""
    annotations = data / "tiny" / "annotations" / "instances_val.json"

    def write(role: str, seed: int, noise: float, **changes: Any) -> Path:
        folder = tmp_path / f"{role}-{seed}"
        folder.mkdir()
        spec = JobSpec.model_validate(job(schedule={"seed": seed}, **changes))
        (folder / "spec.json").write_text(resolve(spec, data, models).model_dump_json())
        logged = [
            events.Facts(values={"student_parameters": 5}),
            events.Metrics(step=1, epoch=1, values={"train/loss": 2.0, "train/lr": 0.1, "val/bbox_mAP": 0.2}),
            events.Metrics(step=2, epoch=1, values={"train/loss": 9.0}),
            events.Rewound(to_step=1),
            events.Metrics(step=2, epoch=1, values={"train/loss": 1.0}),
            events.Outcome(status="succeeded"),
        ]
        if role == "student":
            (folder / TEACHER).write_bytes(pack(near_truth(annotations, 0.1, 0)))
            logged.insert(0, events.Artifact(name=TEACHER, path=TEACHER, sha256="0" * 64, bytes=1))
        (folder / "events.jsonl").write_text("\n".join(event.model_dump_json() for event in logged) + "\n{cut o")
        run_detections = near_truth(annotations, noise, seed)
        (folder / "detections-student.npz").write_bytes(pack(run_detections))
        return folder

    return write


def near_truth(annotations: Path, noise: float, seed: int) -> Detections:
    truth, random = coco.read(annotations), np.random.default_rng(seed)
    boxes = truth.boxes
    ids = np.array([image.id for image in truth.images])
    noisy = (boxes.xywh + random.normal(0, noise, boxes.xywh.shape)).clip(1).astype(np.float32)
    scores = random.uniform(0.5, 1, len(boxes)).astype(np.float32)
    rows = np.column_stack([ids[boxes.image], noisy, scores, boxes.label]).astype(float)
    return Detections(rows, np.sort(ids), truth.classes, digest(annotations))


def compare(spec: ResolvedSpec, folder: Path, stop: StopRequest | None = None) -> list[events.Event]:
    emitted: list[events.Event] = []
    assert spec.comparison_inputs is not None
    assert (
        compare_module.run(spec, spec.comparison_inputs, folder, emitted.append, stop or StopRequest()) == "completed"
    )
    return emitted


def test_a_better_student_is_reported_with_its_interval_and_pictures(write_run: WriteRun, tmp_path: Path) -> None:
    spec = paired_runs.comparison_spec([write_run("student", 0, 0.5)], [write_run("baseline", 0, 4.0)])
    emitted = compare(spec, tmp_path)
    pictures = {artifact.name for artifact in of(events.Artifact, emitted)} - {"report.json", "details.json"}
    assert pictures == {"curves.png", "precision-recall.png", "confusion.png", "detections.png"}
    for name in pictures:
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 300
    report = Report.model_validate_json((tmp_path / "report.json").read_text())
    assert (report.status, report.verdict, report.verdict_by) == ("complete", "improved", "images")
    assert report.comparison is not None and report.comparison.seed_interval is None
    assert 0 < report.comparison.image_interval.low < report.comparison.gain < report.comparison.image_interval.high
    assert [row.role for row in report.rows] == ["teacher", "baseline", "student", "gain"]
    assert report.facts == RunFacts(student_parameters=5)
    [fact] = of(events.Facts, emitted)
    assert fact.values["comparison"] == json.loads((tmp_path / "report.json").read_text())["comparison"]


def test_the_details_list_what_each_detector_gets_right_and_wrong(write_run: WriteRun, tmp_path: Path) -> None:
    spec = paired_runs.comparison_spec([write_run("student", 0, 0.5)], [write_run("baseline", 0, 4.0)])
    compare(spec, tmp_path)
    details = Details.model_validate_json((tmp_path / "details.json").read_text())
    truth = coco.read(spec.val.annotations)
    assert details.classes == truth.classes
    curve = details.curves["0.50"]["teacher"]
    assert len(details.recalls) == len(curve.mean) == 101 and curve.mean[0] == 1
    assert set(details.confusion) == {"teacher", "baseline", "student"}
    correct = sum(count for label, detected, count in details.confusion["teacher"] if label == detected)
    assert correct == len(truth.boxes), "the teacher's boxes are 0.1 pixels off"
    assert details.images, "baseline and student differ on some image"
    for image in details.images:
        entry = next(entry for entry in truth.images if entry.id == image.id)
        assert (image.file_name, image.width, image.height) == (entry.file_name, entry.width, entry.height)
        right = [sum(box.outcome == "right" for box in image.detections[role]) for role in ("baseline", "student")]
        wrong = [sum(box.outcome == "wrong" for box in image.detections[role]) for role in ("baseline", "student")]
        balance = [image.balance["baseline"], image.balance["student"]]
        assert balance == [right[0] - wrong[0], right[1] - wrong[1]] and balance[0] != balance[1]


def test_images_are_selected_by_the_lead_of_the_better_detector() -> None:
    balances = {
        "teacher": np.array([5.0, 1, 1, 1]),
        "baseline": np.array([1.0, 1, 3, 1]),
        "student": np.array([1.0, 2, 1, 1]),
    }
    assert details_module.select_images(balances) == [0, 2, 1]


def test_a_failed_picture_does_not_fail_the_comparison(
    write_run: WriteRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_draw(*_: Any) -> bytes:
        raise ValueError("missing font")

    monkeypatch.setattr(compare_module.curves, "draw", fail_to_draw)
    emitted = compare(
        paired_runs.comparison_spec([write_run("student", 0, 0.5)], [write_run("baseline", 0, 4.0)]), tmp_path
    )
    names = [artifact.name for artifact in of(events.Artifact, emitted)]
    assert names == ["report.json", "details.json", "precision-recall.png", "confusion.png", "detections.png"]
    assert any("curves.png could not be drawn" in log.message for log in of(events.Log, emitted))


def test_class_names_with_dollar_signs_are_drawn(write_run: WriteRun, tmp_path: Path) -> None:
    spec = paired_runs.comparison_spec([write_run("student", 0, 0.5)], [write_run("baseline", 0, 4.0)])
    annotations = tmp_path / "instances_val.json"
    content = json.loads(spec.val.annotations.read_text())
    for number, category in enumerate(content["categories"]):
        category["name"] = f"US$\\x$ {number}"
    annotations.write_text(json.dumps(content))
    names = tuple(category["name"] for category in content["categories"])
    for file in [run.detections for run in spec.comparison_inputs.runs] + [spec.comparison_inputs.teacher]:
        run_detections = detections.read(file)
        file.write_bytes(pack(Detections(run_detections.rows, run_detections.images, names, digest(annotations))))
    spec = spec.model_copy(update={"val": spec.val.model_copy(update={"annotations": annotations})})
    assert "detections.png" in [artifact.name for artifact in of(events.Artifact, compare(spec, tmp_path))]


def test_pairs_with_different_numbers_of_steps_have_a_caveat(write_run: WriteRun, tmp_path: Path) -> None:
    student, baseline = write_run("student", 0, 0.5), write_run("baseline", 0, 4.0)
    event_log = baseline / "events.jsonl"
    event_log.write_text(
        event_log.read_text()
        .replace('"step":1,"epoch":1,"values":{"train/loss":2', '"step":3,"epoch":1,"values":{"train/loss":2')
        .replace('"to_step":1', '"to_step":3')
    )
    compare(paired_runs.comparison_spec([student], [baseline]), tmp_path)
    caveat = Report.model_validate_json((tmp_path / "report.json").read_text()).caveat
    assert caveat is not None and "seed 0: 1 steps with distillation, 3 without" in caveat


def test_a_run_that_has_not_succeeded_is_rejected(write_run: WriteRun) -> None:
    student, baseline = write_run("student", 0, 0.5), write_run("baseline", 0, 4.0)
    event_log = student / "events.jsonl"
    event_log.write_text(event_log.read_text().replace('"succeeded"', '"interrupted"'))
    with pytest.raises(DetectionsUnusable, match="has not succeeded"):
        paired_runs.comparison_spec([student], [baseline])


def test_runs_with_different_limits_on_the_detections_are_rejected(write_run: WriteRun) -> None:
    student, baseline = write_run("student", 0, 0.5), write_run("baseline", 0, 4.0, evaluation={"max_detections": 300})
    with pytest.raises(RunsDiffer, match=r"`evaluation.max_detections`: .*student-0 100, .*baseline-0 300"):
        paired_runs.comparison_spec([student], [baseline])


def test_equal_runs_have_no_difference(write_run: WriteRun, tmp_path: Path) -> None:
    compare(paired_runs.comparison_spec([write_run("student", 0, 1.0)], [write_run("baseline", 0, 1.0)]), tmp_path)
    report = Report.model_validate_json((tmp_path / "report.json").read_text())
    assert report.comparison is not None and report.verdict == "no_difference"
    assert (report.comparison.image_interval.low, report.comparison.image_interval.high) == (0.0, 0.0)


def test_runs_are_paired_by_seed_with_an_interval_over_seeds(write_run: WriteRun, tmp_path: Path) -> None:
    students = [write_run("student", seed, 0.5) for seed in (2, 0, 1)]
    baselines = [write_run("baseline", seed, 4.0) for seed in range(3)]
    compare(paired_runs.comparison_spec(students, baselines), tmp_path)
    report = Report.model_validate_json((tmp_path / "report.json").read_text())
    assert report.comparison is not None and report.comparison.seed_interval is not None
    assert [pair.seed for pair in report.comparison.pairs] == [0, 1, 2]
    assert (report.comparison.seed_interval.n, report.verdict_by) == (3, "seeds")
    assert report.comparison.gain == pytest.approx(np.mean([pair.gain for pair in report.comparison.pairs]))


def test_the_interval_over_seeds_is_a_t_interval() -> None:
    interval = compare_module.seed_interval([0.01, 0.02, 0.03])
    assert interval is not None  # 4.302653 is the table's value for two degrees of freedom
    assert (interval.low, interval.high) == pytest.approx(
        (0.02 - 4.302653 * 0.01 / 3**0.5, 0.02 + 4.302653 * 0.01 / 3**0.5)
    )
    assert compare_module.seed_interval([0.01]) is None


@pytest.mark.parametrize(("students", "baselines"), [([0], [1]), ([0, 1], [0]), ([], []), ([0, 0], [0, 0])])
def test_seeds_without_a_pair_are_rejected(students: list[int], baselines: list[int]) -> None:
    seeds = {"student": students, "baseline": baselines}
    runs = [FinishedRun(role=role, seed=seed, detections=Path("x")) for role in seeds for seed in seeds[role]]  # type: ignore[arg-type]
    with pytest.raises(RunsDiffer):
        compare_module.pair_runs(runs)


def test_detections_on_another_validation_set_are_rejected(write_run: WriteRun, tmp_path: Path) -> None:
    student, baseline = write_run("student", 0, 1.0), write_run("baseline", 0, 1.0)
    run_detections = detections.read(baseline / "detections-student.npz")
    other = Detections(run_detections.rows, run_detections.images, run_detections.classes, "0" * 64)
    (baseline / "detections-student.npz").write_bytes(pack(other))
    with pytest.raises(RunsDiffer, match="annotation file"):
        compare(paired_runs.comparison_spec([student], [baseline]), tmp_path)


def test_a_comparison_can_be_interrupted(write_run: WriteRun, tmp_path: Path) -> None:
    stop = StopRequest()
    stop.request()
    with pytest.raises(Interrupted):
        compare(
            paired_runs.comparison_spec([write_run("student", 0, 1.0)], [write_run("baseline", 0, 1.0)]), tmp_path, stop
        )


def test_saved_detections_have_exactly_the_same_scores(data: Path, tmp_path: Path) -> None:
    annotations = data / "tiny" / "annotations" / "instances_val.json"
    run_detections = near_truth(annotations, 3.0, 0)
    (tmp_path / "saved.npz").write_bytes(pack(run_detections))
    saved = detections.read(tmp_path / "saved.npz")
    truth = coco.read(annotations)
    assert score(saved.rows, truth) == score(run_detections.rows, truth)
    assert (saved.classes, saved.annotations_sha256) == (run_detections.classes, run_detections.annotations_sha256)


def detection_arrays(**changes: Any) -> dict[str, Any]:
    arrays = {
        "image": np.array([1]),
        "corners": np.zeros((1, 4), np.float32),
        "score": np.ones(1, np.float32),
        "label": np.zeros(1, np.int32),
        "images": np.array([1]),
        "classes": np.array(["a"]),
        "annotations_sha256": np.array("0"),
    }
    return arrays | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"label": np.array([1], np.int32)},
        {"label": np.array([-1], np.int32)},
        {"image": np.array([2])},
        {"corners": np.full((1, 4), np.nan, np.float32)},
        {"corners": np.zeros((2, 4), np.float32)},
        {"score": np.array(["high"])},
        {"classes": np.array([{"a": 1}], dtype=object)},
    ],
)
def test_invalid_detections_are_rejected(tmp_path: Path, changes: dict[str, Any]) -> None:
    np.savez(tmp_path / "good.npz", **detection_arrays())
    detections.read(tmp_path / "good.npz")
    np.savez(tmp_path / "bad.npz", allow_pickle=True, **detection_arrays(**changes))
    with pytest.raises(DetectionsUnusable):
        detections.read(tmp_path / "bad.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive"])
def test_a_file_that_is_not_an_archive_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(DetectionsUnusable):
        detections.read(tmp_path / "bad.npz")


def test_points_voided_by_a_rewind_are_not_drawn(write_run: WriteRun) -> None:
    spec = paired_runs.comparison_spec([write_run("student", 0, 1.0)], [write_run("baseline", 0, 1.0)])
    assert spec.comparison_inputs is not None
    assert spec.comparison_inputs.runs[0].curves == {"train/loss": [(1, 2.0), (2, 1.0)], "val/bbox_mAP": [(1, 0.2)]}


def test_a_folder_without_a_run_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DetectionsUnusable, match="not a work folder"):
        paired_runs.comparison_spec([tmp_path], [tmp_path])


def test_pairs_are_planned_by_seed_and_finished_runs_are_recognised(
    data: Path, models: Path, write_run: WriteRun
) -> None:
    changes = {"schedule": {"seed": 4}, "baseline": {"seeds": 2}}
    runs = list(paired_runs.planned_runs(resolve(JobSpec.model_validate(job(**changes)), data, models)))
    assert [run.name for run in runs] == ["student-seed4", "baseline-seed4", "student-seed5", "baseline-seed5"]
    assert [run.spec.teacher is None for run in runs] == [False, True, False, True]
    folder = write_run("student", 4, 1.0)
    assert not paired_runs.is_done(folder.parent / "nothing", runs[0].spec)
    assert paired_runs.is_done(folder, runs[0].spec)
    with pytest.raises(CheckpointUnusable):
        paired_runs.is_done(folder, runs[1].spec)


def test_a_finished_run_of_an_earlier_version_or_with_another_priority_is_not_repeated(
    data: Path, models: Path, write_run: WriteRun
) -> None:
    folder = write_run("student", 0, 1.0)
    stored = json.loads((folder / "spec.json").read_text())
    del stored["job"]["distillation"]["init_from_teacher"], stored["job"]["schedule"]["frozen_stages"]
    (folder / "spec.json").write_text(json.dumps(stored))
    changes = {"priority": -3, "tags": ("night",), "resources": {"loader_workers": 1}}
    [run, _] = paired_runs.planned_runs(resolve(JobSpec.model_validate(job(baseline=True, **changes)), data, models))
    assert paired_runs.is_done(folder, run.spec)


@pytest.mark.parametrize("changes", [{"schedule": {"flip_prob": 0.25}}, {"resources": {"processes": 2}}])
def test_a_finished_run_of_another_spec_is_refused(
    data: Path, models: Path, write_run: WriteRun, changes: dict[str, Any]
) -> None:
    folder = write_run("student", 0, 1.0)
    [run, _] = paired_runs.planned_runs(resolve(JobSpec.model_validate(job(baseline=True, **changes)), data, models))
    with pytest.raises(CheckpointUnusable):
        paired_runs.is_done(folder, run.spec)
    (folder / "spec.json").write_text("{}")
    with pytest.raises(CheckpointUnusable):
        paired_runs.is_done(folder, run.spec)


def test_baselines_have_no_unlabelled_images(data: Path, models: Path) -> None:
    spec = resolve(JobSpec.model_validate(job(baseline=True, unlabelled="tiny")), data, models)
    student, baseline = paired_runs.planned_runs(spec)
    assert student.spec.unlabelled is not None and baseline.spec.unlabelled is None


@pytest.mark.parametrize(("checkpoint", "kept"), [("", []), ("checkpoints/step_00000004-0a1b2c3d.pth", ["Log"])])
def test_the_events_of_an_earlier_attempt_are_kept_if_the_run_continues_from_its_checkpoint(
    data: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: str, kept: list[str]
) -> None:
    def succeed(spec: ResolvedSpec, folder: Path, emit: events.Emit) -> int:
        emit(events.Outcome(status="succeeded"))
        return 0

    monkeypatch.setattr(running, "run", succeed)
    (tmp_path / "events.jsonl").write_text(events.Log(message="of the first attempt").model_dump_json() + "\n")
    if checkpoint:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / checkpoint).touch()
    running.run_in(tmp_path, resolve(JobSpec.model_validate(job()), data, models), json_=True)
    assert [type(event).__name__ for event in run_folder.read_events(tmp_path)] == [*kept, "Outcome"]


def test_the_detections_of_an_earlier_attempts_teacher_are_not_compared(write_run: WriteRun) -> None:
    student, baseline = write_run("student", 0, 0.5), write_run("baseline", 0, 4.0)
    inputs = paired_runs.comparison_spec([student], [baseline]).comparison_inputs
    assert inputs is not None and inputs.teacher == student / "detections-teacher.npz"
    log = student / "events.jsonl"
    log.write_text("\n".join(line for line in log.read_text().splitlines() if "detections-teacher" not in line))
    inputs = paired_runs.comparison_spec([student], [baseline]).comparison_inputs
    assert inputs is not None and inputs.teacher is None


def test_a_damaged_archive_is_rejected(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bad.npz", **detection_arrays(score=np.linspace(0, 1, 1).astype(np.float32)))
    content = bytearray((tmp_path / "bad.npz").read_bytes())
    for position in range(60, 140):
        content[position] ^= 0xFF
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(DetectionsUnusable):
        detections.read(tmp_path / "bad.npz")
