"""Compare distillation methods in paired runs of several arms and seeds: the experiments of `docs/results.md`.

    python benchmarks/results.py --data DIR [--output runs/results] [--runs-at-once 2] [--tables-only]

After every run, the tables in `OUTPUT/results.md` are updated. Every run is `python -m frs train` with a spec stored
next to its results. After an interruption, the script continues; completed runs are not repeated. All arms of a seed
start from the same weights, use the same images in the same order for the same number of steps, and are evaluated
once, after the last.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from frs.comparison.compare import seed_interval
from frs.dataset.shapes.drawing import draw_dataset
from frs.evaluation.verdict import MIN_SEEDS, verdict_of

Spec = dict[str, Any]
FIRST_ARMS, OTHER_ARMS = ("none", "frs", "random teacher"), ("feature", "logit", "uniform", "boxes", "pkd")
FIRST_SEEDS, OTHER_SEEDS = 5, 3
OUTCOME = '"type":"outcome","status":"succeeded"'
SCHEDULE: Spec = {
    "batch_size": 8,
    "optimizer": {"name": "adamw", "learning_rate": 0.002},
    "lr_schedule": {"name": "cosine"},
    "max_grad_norm": 10,
    "evaluate_every": 1000,
}
STUDENT: Spec = {"architecture": "gfl", "backbone": {"depth": 18, "width": 8}, "neck_channels": 32, "stacked_convs": 1}


@dataclass(frozen=True)
class Study:
    """A data set with a teacher and a student small enough for CPU training."""

    name: str
    dataset: str
    image_size: tuple[int, int]
    epochs: int
    teacher: Spec
    teacher_epochs: int = 0
    """0: the teacher's weights are part of the package."""

    def teacher_run(self) -> Spec:
        """Return the spec that trains the teacher."""
        schedule = SCHEDULE | {"epochs": self.teacher_epochs, "image_size": list(self.image_size)}
        student = {key: value for key, value in self.teacher.items() if key != "init"}
        return {"kind": "train", "dataset": self.dataset, "student": student, "schedule": schedule}

    def run(self, arm: str, seed: int) -> Spec:
        """Return the spec of one run."""
        schedule = SCHEDULE | {"epochs": self.epochs, "image_size": list(self.image_size), "seed": seed}
        spec = {"dataset": self.dataset, "student": STUDENT, "schedule": schedule}
        if arm == "none":
            return spec | {"kind": "train"}
        random = arm == "random teacher"
        teacher = self.teacher | {"init": "random"} if random else self.teacher
        return spec | {
            "kind": "distill",
            "method": "frs" if random else arm,
            "teacher": teacher,
            "distillation": {"accept_weak_teacher": random},
        }


SHAPES = Study(
    "shapes",
    "shapes",
    (160, 160),
    24,
    {
        "architecture": "gfl",
        "backbone": {"depth": 18, "width": 16},
        "neck_channels": 48,
        "stacked_convs": 2,
        "init": {"weights": "shapes_teacher-d5d99538.pth"},
    },
)
BCCD = Study(
    "bccd",
    "bccd",
    (320, 240),
    12,
    {
        "architecture": "gfl",
        "backbone": {"depth": 18, "width": 24},
        "neck_channels": 64,
        "stacked_convs": 2,
        "init": {"weights": "bccd_teacher.pth"},
    },
    teacher_epochs=24,
)


@dataclass(frozen=True)
class Run:
    """One run of a study: an arm with a seed."""

    study: Study
    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.study.name}/{self.arm.replace(' ', '-')}-{self.seed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that contains bccd/; shapes are drawn below --output"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/results"))
    parser.add_argument("--runs-at-once", type=int, default=2, help="number of parallel runs, one thread each")
    parser.add_argument("--tables-only", action="store_true", help="only print the tables of the completed runs")
    options = parser.parse_args()
    if options.tables_only:
        print(tables(options.output))
        return
    prepare(options.data, options.output, options.runs_at_once)
    todo = [run for run in runs(SHAPES, BCCD) if not is_complete(options.output / run.name)]
    total = len(list(runs(SHAPES, BCCD)))
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("runs", total=total, completed=total - len(todo))
        with ThreadPoolExecutor(options.runs_at_once) as pool:
            for run, failed in pool.map(
                lambda run: (run, train(run.study.run(run.arm, run.seed), options.output, run.name)), todo
            ):
                bar.update(task, advance=1, description=run.name)
                (options.output / "results.md").write_text(tables(options.output))
                if failed:
                    bar.console.print(f"{run.name}: {failed}")


def runs(*studies: Study) -> Iterator[Run]:
    """Yield the most informative runs first, so that an early stop leaves complete comparisons."""
    for arms, seeds in ((FIRST_ARMS, FIRST_SEEDS), (OTHER_ARMS, OTHER_SEEDS)):
        for study in studies:
            yield from (Run(study, arm, seed) for seed in range(seeds) for arm in arms)


def prepare(data: Path, output: Path, threads: int) -> None:
    """Create the data sets and the teachers' weights."""
    for folder in ("data", "models"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    draw_dataset(output / "data" / "shapes", train=400, val=400)
    if not (output / "data" / "bccd").exists():
        shutil.copytree(data / "bccd", output / "data" / ".bccd", dirs_exist_ok=True)
        (output / "data" / ".bccd").rename(output / "data" / "bccd")
    for weights in files("frs.recipes").joinpath("weights").iterdir():
        (output / "models" / weights.name).write_bytes(weights.read_bytes())
    if not (output / "models" / "bccd_teacher.pth").exists():
        print("bccd teacher")
        if failed := train(BCCD.teacher_run(), output, "bccd/teacher", threads):
            raise SystemExit(failed)
        shutil.copy(last_student(output / "bccd" / "teacher"), output / "models" / "bccd_teacher.pth")


def train(spec: Spec, output: Path, name: str, threads: int = 1) -> str:
    """Train in a subprocess. Return the end of its output if it failed, else an empty string."""
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    command = [sys.executable, "-m", "frs", "train", str(folder / "spec.yaml"), "--workdir", str(folder), "--json"]
    completed = subprocess.run(
        [*command, "--data", str(output / "data"), "--models", str(output / "models")],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if completed.returncode == 0 else (completed.stdout + completed.stderr)[-1000:]


def tables(output: Path) -> str:
    """Return one Markdown table per data set with the completed runs; mAP in percent."""
    parts = [_table(study, output) for study in (SHAPES, BCCD)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(study: Study, output: Path) -> str:
    scores = {arm: _mAP_by_seed(study, arm, output) for arm in (*FIRST_ARMS, *OTHER_ARMS)}
    baseline = scores["none"]
    lines = [
        f"| {study.name} | seeds | mAP | gain over `none`, same seeds | 95 % interval | verdict |",
        "|---|---|---|---|---|---|",
    ]
    teacher = next((mAP for arm in ("frs", *OTHER_ARMS) for mAP in _teacher_mAP(study, arm, output)), None)
    if teacher is not None:
        lines.append(f"| the teacher | | {100 * teacher:.1f} | | | |")
    for arm, by_seed in scores.items():
        if by_seed:
            lines.append(
                _row(arm, by_seed, {seed: mAP - baseline[seed] for seed, mAP in by_seed.items() if seed in baseline})
            )
    return "\n".join(lines) if len(lines) > 2 else ""


def _row(arm: str, by_seed: dict[int, float], gains: dict[int, float]) -> str:
    spread = f" ± {100 * stdev(by_seed.values()):.1f}" if len(by_seed) > 1 else ""
    cells = [f"`{arm}`" if " " not in arm else arm, str(len(by_seed)), f"{100 * mean(by_seed.values()):.1f}{spread}"]
    interval = seed_interval(list(gains.values())) if arm != "none" else None
    if interval is None:
        return f"| {' | '.join(cells)} | | | |"
    verdict = verdict_of(interval).replace("_", " ") if interval.n >= MIN_SEEDS else "too few seeds"
    low, high = 100 * interval.low, 100 * interval.high
    return f"| {' | '.join(cells)} | {100 * interval.mean:+.1f} | {low:+.1f} to {high:+.1f} | {verdict} |"


def _mAP_by_seed(study: Study, arm: str, output: Path) -> dict[int, float]:
    folders = {seed: output / Run(study, arm, seed).name for seed in range(FIRST_SEEDS)}
    return {seed: _evaluated(folder, "student")[-1] for seed, folder in folders.items() if is_complete(folder)}


def _teacher_mAP(study: Study, arm: str, output: Path) -> list[float]:
    folder = output / Run(study, arm, 0).name
    return _evaluated(folder, "teacher") if is_complete(folder) else []


def _evaluated(folder: Path, role: str) -> list[float]:
    events = (json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines())
    return [
        e["metrics"]["bbox_mAP"] or 0.0 for e in events if e["type"] == "evaluation" and e["role"] == role and e["last"]
    ]


def is_complete(folder: Path) -> bool:
    events = folder / "events.jsonl"
    return events.is_file() and OUTCOME in events.read_text().replace(" ", "")


def last_student(folder: Path) -> Path:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    students = [
        e["path"] for e in events if e["type"] == "checkpoint" and e["kind"] == "student" and "last" in e["labels"]
    ]
    return folder / students[-1]


if __name__ == "__main__":
    main()
