"""The experiments are valid jobs, and their results are kept, continued and tabulated."""

import json
from pathlib import Path
from typing import Any

import experiments
import pytest
import results
import results_tables
from experiments import QUESTIONS, STUDIES, Run

from frs import events
from frs.spec import JobSpec

ARM = experiments.CHOSEN_ARM
RUN = Run("cells", ARM, seed=3, epochs=10)


@pytest.fixture(autouse=True)
def results_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_tables, "RESULTS", tmp_path / "results")


def row(arm: str, seed: int, mAP: float, **changes: str) -> results_tables.Row:
    return (
        dict.fromkeys(results_tables.COLUMNS, "")
        | {
            "arm": arm,
            "seed": str(seed),
            "epochs": "10",
            "steps": "260",
            "mAP": f"{mAP}",
        }
        | changes
    )


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_run_is_a_valid_job_and_has_a_baseline_of_the_same_seed(question: str) -> None:
    planned = QUESTIONS[question]
    for run in planned:
        JobSpec.model_validate(run.spec())
        assert run.spec()["schedule"]["seed"] == run.seed
    assert {Run(STUDIES[run.study].baseline or run.study, "none", run.seed, run.epochs) for run in planned} <= set(
        planned
    )


def test_test_seeds_are_not_used_for_tuning() -> None:
    assert all(run.seed >= 100 for name in ("weight", "mask", "methods", "methods-2") for run in QUESTIONS[name])
    tested = ("default", "present-default", "length", "unlabelled", "students", "longest", "teacher-head")
    assert all(run.seed < 100 for name in tested for run in QUESTIONS[name])


def test_students_that_start_from_the_teachers_head_have_its_shapes() -> None:
    for run in QUESTIONS["teacher-head"]:
        student, teacher = STUDIES[run.study].student, STUDIES[run.study].teacher
        assert all(student[name] == teacher[name] for name in ("architecture", "neck_channels", "stacked_convs"))
    starts = {
        run.arm: run.spec().get("distillation", {}).get("init_from_teacher", False) for run in QUESTIONS["teacher-head"]
    }
    assert sorted(starts.values()) == [False, False, True, True]


def test_runs_with_a_row_are_not_repeated() -> None:
    planned = experiments.runs(["cells"], ["none", ARM], [2, 3])
    assert results.missing(planned) == planned
    results_tables.append("cells", row(ARM, 3, 50.0))
    assert results.missing(planned) == [run for run in planned if run != RUN]


def test_a_row_has_the_numbers_of_the_run(tmp_path: Path) -> None:
    def evaluation(role: Any, mAP: float, step: int, last: bool) -> events.Evaluation:
        metrics = {"bbox_mAP": mAP, "bbox_mAP_50": 0.8, "bbox_mAP_75": None}
        return events.Evaluation(
            role=role, step=step, epoch=0, metrics=metrics, per_class={}, images=5, detections=9, last=last
        )

    emitted: list[events.Event] = [
        evaluation("teacher", 0.55, 0, last=True),
        events.Facts(values={"weights": {"feature": 2.5e-4, "logit": 0.125, "ramp_from": 13}}),
        *(
            events.Metrics(step=step, epoch=1, values={"train/share_feature": share, "train/coverage_8": 0.25})
            for step, share in ((20, 99.0), (27, 30.0), (200, 4.0), (260, 2.0))
        ),
        evaluation("student", 0.31, 130, last=False),
        evaluation("student", 0.415, 260, last=True),
        events.Facts(values={"student_sha256": "a" * 64, "teacher_sha256": "b" * 64}),
    ]
    with (tmp_path / "events.jsonl").open("w") as file:
        emit = events.lines_to(file)
        for event in emitted:
            emit(event)
    (tmp_path / "seconds").write_text("90")
    numbers = results.row_of(RUN, tmp_path)
    assert numbers.keys() | {"commit"} == set(results_tables.COLUMNS)
    assert numbers | {"commit": ""} == row(ARM, 3, 0) | {
        "mAP": "41.50",
        "mAP_50": "80.00",
        "mAP_75": "",
        "halfway_mAP": "31.00",
        "teacher_mAP": "55.00",
        "feature_weight": "0.00025",
        "logit_weight": "0.125",
        "first_share": "12",
        "last_share": "12",
        "coverage": "0.25",
        "minutes": "1.5",
        "teacher": "b" * 8,
        "student": "a" * 8,
    }


def add_pairs(alone: list[float], distilled: list[float], teacher: str = "60.00") -> None:
    for seed, (without, with_teacher) in enumerate(zip(alone, distilled, strict=True)):
        results_tables.append("cells", row("none", seed, without))
        results_tables.append(
            "cells", row(ARM, seed, with_teacher, teacher="abc", teacher_mAP=teacher, feature_weight="0.02")
        )


def test_a_table_has_the_gain_over_the_same_seeds_with_its_interval() -> None:
    add_pairs([40.0, 42.0, 41.0, 40.0, 42.0], [46.0] * 5)
    results_tables.append("cells", row("none", 5, 50.0))
    results_tables.append("cells", row("none", 100, 1.0))
    lines = results_tables.tables().splitlines()
    assert lines[0].startswith("| cells, 260 steps, test seeds |")
    assert "| teacher abc | | 60.00 | | | | |" in lines
    assert f"| `{ARM}` | 5 | 46.0 ± 0.0 | +5.0 | +3.8 to +6.2 | improved | 0.02, x 1.00 |" in lines
    assert any("tuning seeds" in line for line in lines)


def test_a_study_without_a_baseline_of_its_own_has_the_gain_over_that_of_another() -> None:
    results_tables.append("cells-100", row("none", 0, 40.0))
    for study, mAP in (("cells-100", 45.0), ("cells-100-unlabelled", 47.0)):
        results_tables.append(study, row(ARM, 0, mAP, teacher="abc", teacher_mAP="60.00"))
    *_, baseline, arm = results_tables.tables().splitlines()
    assert baseline.startswith("| `none` | 1 | 40.0 |")
    assert arm.startswith(f"| `{ARM}` | 1 | 47.0 | +7.0 |")


@pytest.mark.parametrize(
    ("seeds", "teacher", "verdict"),
    [(4, "60.00", "too few seeds"), (5, "44.90", "weak teacher"), (5, "45.10", "worse")],
)
def test_an_arm_has_a_verdict_from_five_seeds_on_under_a_teacher_that_leads(
    seeds: int, teacher: str, verdict: str
) -> None:
    add_pairs([40.0] * seeds, [30.0] * seeds, teacher)
    assert f"| {verdict} |" in results_tables.tables().splitlines()[-1]


def test_runs_under_different_teachers_are_not_averaged() -> None:
    add_pairs([40.0], [46.0])
    results_tables.append("cells", row(ARM, 1, 99.0, teacher="def", teacher_mAP="70.00"))
    assert [line for line in results_tables.tables().splitlines() if " under " in line] == [
        f"| `{ARM}` under abc | 1 | 46.0 | +6.0 |  |  | 0.02 |",
        f"| `{ARM}` under def | 1 | 99.0 |  |  |  |  |",
    ]


def test_merged_splits_keep_every_box_on_its_image() -> None:
    parts: list[dict[str, Any]] = [
        {
            "images": [{"id": 5, "file_name": f"{name}.jpg"}],
            "annotations": [{"id": 1, "image_id": 5, "bbox": [0, 0, size, size]}],
            "categories": [{"id": 1, "name": "cell"}],
        }
        for name, size in (("a", 3), ("b", 4))
    ]
    whole = results.merged(parts)
    files = {image["id"]: image["file_name"] for image in whole["images"]}
    assert {files[a["image_id"]]: a["bbox"][2] for a in whole["annotations"]} == {"a.jpg": 3, "b.jpg": 4}
    assert len({a["id"] for a in whole["annotations"]}) == 2
    assert [i["file_name"] for i in results.subset(whole, {"b.jpg"})["images"]] == ["b.jpg"]
    assert [a["bbox"][2] for a in results.subset(whole, {"b.jpg"})["annotations"]] == [4]


def test_the_cells_are_split_into_labelled_and_remaining_images(tmp_path: Path) -> None:
    bccd = tmp_path / "bccd"
    (bccd / "annotations").mkdir(parents=True)
    for split, count in (("train", 104), ("val", 2), ("test", 3)):
        (bccd / split).mkdir()
        images = [{"id": i, "file_name": f"{split}{i}.jpg", "width": 8, "height": 8} for i in range(count)]
        for image in images:
            (bccd / split / image["file_name"]).write_bytes(b"jpg")
        content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
        (bccd / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    results.prepare_cells(bccd, tmp_path / "data")
    names = {
        name: {path.name for path in (tmp_path / "data" / name / "train").iterdir()}
        for name in ("cells", "cells-100", "cells-rest")
    }
    assert [len(names[name]) for name in ("cells", "cells-100", "cells-rest")] == [104, 100, 4]
    assert names["cells-100"] | names["cells-rest"] == names["cells"]
    assert len(list((tmp_path / "data" / "cells" / "val").iterdir())) == 5
    assert STUDIES["cells"].dataset == "cells"


def test_settings_are_scored_by_their_share_of_the_largest_gain() -> None:
    for study, gains in (("shapes", {"frs 3": 5.0, "frs 10": 10.0}), ("cells", {"frs 3": 4.0, "frs 10": 2.0})):
        for seed in results_tables.TUNING_SEEDS:
            epochs = str(results_tables.STUDIES[study].epochs)
            for arm, gain in ({"none": 0.0} | gains).items():
                results_tables.append(study, row(arm, seed, 30 + gain, epochs=epochs))
    results_tables.append("shapes", row("frs 30", 100, 90, epochs=str(results_tables.STUDIES["shapes"].epochs)))
    table = results_tables.tuning_table(["frs 3", "frs 10", "frs 30"]).splitlines()
    assert table[2:] == ["| `frs 3` | +5.0 | +4.0 | 0.750 |", "| `frs 10` | +10.0 | +2.0 | 0.750 |"]
