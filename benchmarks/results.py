"""Does distillation pay, and which method? Paired runs of many arms and seeds: what `docs/results.md` is written from.

    python benchmarks/results.py --data DIR [--to runs/results] [--runs-at-once 2] [--tables-only]

Writes the tables of what has been reached to `TO/results.md` after every run. Every run is `python -m frs train` with a spec written beside its results. Interrupted, it goes on where it was; a run
that is done is not run again. Every arm of a seed starts from the same weights and sees the same images in the same
order, for as many steps, and is scored once, after the last.
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
from frs.evaluation.report import MIN_SEEDS, verdict_of

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
    """One data set with a teacher and a student small enough for CPU cores."""

    name: str
    dataset: str
    image_size: tuple[int, int]
    epochs: int
    teacher: Spec
    teacher_epochs: int = 0
    """0: the teacher's weights come with the package."""

    def teacher_run(self) -> Spec:
        schedule = SCHEDULE | {"epochs": self.teacher_epochs, "image_size": list(self.image_size)}
        student = {key: value for key, value in self.teacher.items() if key != "init"}
        return {"kind": "train", "dataset": self.dataset, "student": student, "schedule": schedule}

    def run(self, arm: str, seed: int) -> Spec:
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
    study: Study
    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.study.name}/{self.arm.replace(' ', '-')}-{self.seed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds bccd/; shapes are drawn below --output")
    parser.add_argument("--output", type=Path, default=Path("runs/results"))
    parser.add_argument("--runs-at-once", type=int, default=2, help="each on one thread")
    parser.add_argument("--tables-only", action="store_true", help="of the runs that are done")
    asked = parser.parse_args()
    if asked.tables_only:
        print(tables(asked.output))
        return
    prepare(asked.data, asked.output, asked.runs_at_once)
    todo = [run for run in runs(SHAPES, BCCD) if not done(asked.output / run.name)]
    total = len(list(runs(SHAPES, BCCD)))
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("runs", total=total, completed=total - len(todo))
        with ThreadPoolExecutor(asked.runs_at_once) as pool:
            for run, failed in pool.map(
                lambda run: (run, train(run.study.run(run.arm, run.seed), asked.output, run.name)), todo
            ):
                bar.update(task, advance=1, description=run.name)
                (asked.output / "results.md").write_text(tables(asked.output))
                if failed:
                    bar.console.print(f"{run.name}: {failed}")


def runs(*studies: Study) -> Iterator[Run]:
    """What says most first: whoever stops early has whole comparisons."""
    for arms, seeds in ((FIRST_ARMS, FIRST_SEEDS), (OTHER_ARMS, OTHER_SEEDS)):
        for study in studies:
            yield from (Run(study, arm, seed) for seed in range(seeds) for arm in arms)


def prepare(data: Path, to: Path, threads: int) -> None:
    """Data sets and teachers."""
    for folder in ("data", "models"):
        (to / folder).mkdir(parents=True, exist_ok=True)
    draw_dataset(to / "data" / "shapes", train=400, val=400)
    if not (to / "data" / "bccd").exists():
        shutil.copytree(data / "bccd", to / "data" / ".bccd", dirs_exist_ok=True)
        (to / "data" / ".bccd").rename(to / "data" / "bccd")
    for weights in files("frs.recipes").joinpath("weights").iterdir():
        (to / "models" / weights.name).write_bytes(weights.read_bytes())
    if not (to / "models" / "bccd_teacher.pth").exists():
        print("bccd teacher")
        if failed := train(BCCD.teacher_run(), to, "bccd/teacher", threads):
            raise SystemExit(failed)
        shutil.copy(last_student(to / "bccd" / "teacher"), to / "models" / "bccd_teacher.pth")


def train(spec: Spec, to: Path, name: str, threads: int = 1) -> str:
    """Runs it in a process of its own; the last words of one that failed, else nothing."""
    folder = to / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    command = [sys.executable, "-m", "frs", "train", str(folder / "spec.yaml"), "--workdir", str(folder), "--json"]
    ended = subprocess.run(
        [*command, "--data", str(to / "data"), "--models", str(to / "models")],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if ended.returncode == 0 else (ended.stdout + ended.stderr)[-1000:]


def tables(to: Path) -> str:
    """One table for each data set, of all runs that are done: mAP in percent."""
    parts = [_table(study, to) for study in (SHAPES, BCCD)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(study: Study, to: Path) -> str:
    reached = {arm: _mAP_by_seed(study, arm, to) for arm in (*FIRST_ARMS, *OTHER_ARMS)}
    alone = reached["none"]
    lines = [
        f"| {study.name} | seeds | mAP | gain over `none`, same seeds | 95 % interval | verdict |",
        "|---|---|---|---|---|---|",
    ]
    teacher = next((mAP for arm in ("frs", *OTHER_ARMS) for mAP in _teacher_mAP(study, arm, to)), None)
    if teacher is not None:
        lines.append(f"| the teacher | | {100 * teacher:.1f} | | | |")
    for arm, by_seed in reached.items():
        if by_seed:
            lines.append(
                _row(arm, by_seed, {seed: mAP - alone[seed] for seed, mAP in by_seed.items() if seed in alone})
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


def _mAP_by_seed(study: Study, arm: str, to: Path) -> dict[int, float]:
    folders = {seed: to / Run(study, arm, seed).name for seed in range(FIRST_SEEDS)}
    return {seed: _evaluated(folder, "student")[-1] for seed, folder in folders.items() if done(folder)}


def _teacher_mAP(study: Study, arm: str, to: Path) -> list[float]:
    folder = to / Run(study, arm, 0).name
    return _evaluated(folder, "teacher") if done(folder) else []


def _evaluated(folder: Path, role: str) -> list[float]:
    told = (json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines())
    return [
        e["metrics"]["bbox_mAP"] or 0.0 for e in told if e["type"] == "evaluation" and e["role"] == role and e["last"]
    ]


def done(folder: Path) -> bool:
    events = folder / "events.jsonl"
    return events.is_file() and OUTCOME in events.read_text().replace(" ", "")


def last_student(folder: Path) -> Path:
    told = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    students = [
        e["path"] for e in told if e["type"] == "checkpoint" and e["kind"] == "student" and "last" in e["labels"]
    ]
    return folder / students[-1]


if __name__ == "__main__":
    main()
