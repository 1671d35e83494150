"""Run the experiments of `docs/protocol.md` and make the tables of `docs/results.md`.

    python benchmarks/results.py --data DIR                            all questions, in the protocol's order
    python benchmarks/results.py --data DIR --questions weight         the runs of one question
    python benchmarks/results.py --data DIR --sets cells --arms none "frs 30" --seeds 0-4 --epochs 30
    python benchmarks/results.py --tables                              the tables of all runs in benchmarks/results

Each run is `python -m frs train`; its numbers become a row of `benchmarks/results/SET.csv` when it ends. Runs that have
a row are not repeated, so the command continues after an interruption, also in another clone.
"""

import argparse
import json
import math
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.resources import files
from pathlib import Path
from statistics import mean
from typing import Any

import experiments
import yaml
from experiments import ARMS, QUESTIONS, STUDIES, TEACHER_EPOCHS, TUNING_SEEDS, Run
from results_tables import Row, append, read, tables, tuning_table
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from frs import events
from frs.comparison.run_folder import last_student
from frs.dataset.shapes.drawing import draw_dataset

LABELLED_OF_ALL = 100
TEACHER_THREADS = 2
"""Another number of threads gives another teacher: sums are rounded in another order."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that contains bccd/; shapes are drawn below --output")
    parser.add_argument("--output", type=Path, default=Path("runs/results"))
    parser.add_argument("--questions", nargs="+", choices=QUESTIONS, default=[*QUESTIONS])
    parser.add_argument("--sets", nargs="+", choices=STUDIES, help="only the runs of these sets")
    parser.add_argument("--arms", nargs="+", choices=["none", *ARMS], metavar="ARM", help="only these arms")
    parser.add_argument("--seeds", type=_seed_range, help="only these seeds, such as 0-4 or 100")
    parser.add_argument("--epochs", type=int, help="runs of this length instead of those of the questions")
    parser.add_argument("--runs-at-once", type=int, default=2, help="number of parallel runs, one thread each")
    parser.add_argument("--tables", action="store_true", help="only print the tables of the completed runs")
    options = parser.parse_args()
    if options.tables:
        print(tables(), tuning_table(experiments.WEIGHT_ARMS), sep="\n\n")
        return
    if options.data is None:
        parser.error("--data is required")
    if options.epochs and not options.arms:
        parser.error("--epochs needs --arms")
    failed = execute(missing(selected(options)), options.data, options.output, options.runs_at_once)
    print(tables())
    if failed:
        raise SystemExit(1)


def _seed_range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def selected(options: argparse.Namespace) -> list[Run]:
    """Return the runs that the command line selects, each once."""
    if options.epochs:
        return experiments.runs(options.sets or STUDIES, options.arms, options.seeds or TUNING_SEEDS, options.epochs)
    planned = dict.fromkeys(run for name in options.questions for run in QUESTIONS[name])
    return [
        run
        for run in planned
        if (not options.sets or run.study in options.sets)
        and (not options.arms or run.arm in options.arms)
        and (options.seeds is None or run.seed in options.seeds)
    ]


def missing(planned: Iterable[Run]) -> list[Run]:
    """Return the runs without a row in the results."""
    done = {(study, row["arm"], row["seed"], row["epochs"]) for study in STUDIES for row in read(study)}
    return [run for run in planned if (run.study, run.arm, str(run.seed), str(run.epochs)) not in done]


def execute(todo: Sequence[Run], data: Path, output: Path, runs_at_once: int) -> list[Run]:
    """Run all of `todo`, append their rows to the results and return the runs that failed."""
    commit, failed = _commit(), list[Run]()
    prepare(todo, data, output)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as bar, ThreadPoolExecutor(runs_at_once) as pool:
        task = bar.add_task("runs", total=len(todo))
        futures = {pool.submit(train, run.spec(), output, run.folder): run for run in todo}
        try:
            for future in as_completed(futures):
                run, failure = futures[future], future.result()
                if failure:
                    failed.append(run)
                    bar.console.print(f"{run.folder}: {failure}")
                else:
                    append(run.study, row_of(run, output / run.folder) | {"commit": commit})
                bar.update(task, advance=1, description=run.folder)
        except KeyboardInterrupt:  # otherwise the pool would start the queued runs
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def prepare(todo: Sequence[Run], data: Path, output: Path) -> None:
    """Create the data sets and the teachers' weights that the runs need."""
    for folder in ("data", "models"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    for weights in files("frs.recipes").joinpath("weights").iterdir():
        (output / "models" / weights.name).write_bytes(weights.read_bytes())
    draw_dataset(output / "data" / "shapes", train=400, val=400)
    if any(STUDIES[run.study].dataset.startswith("cells") for run in todo):
        prepare_cells(data / "bccd", output / "data")
    if any(STUDIES[run.study].teacher_weights == "cells_teacher.pth" and run.arm != "none" for run in todo):
        train_teacher(output)


def train_teacher(output: Path) -> None:
    """Train the teacher of the cells, unless its weights exist."""
    target = output / "models" / "cells_teacher.pth"
    if target.exists():
        return
    study = STUDIES["cells"]
    schedule = study.schedule(TEACHER_EPOCHS) | {"augmentation": "strong", "precision": "fp32"}
    spec = {"kind": "train", "dataset": "cells", "student": study.teacher, "schedule": schedule}
    if failure := train(spec, output, "cells/teacher", TEACHER_THREADS):
        raise SystemExit(failure)
    teacher = output / "cells" / "teacher"
    shutil.copy(teacher / last_student(teacher).path, target.with_suffix(".part"))
    target.with_suffix(".part").rename(target)


def prepare_cells(bccd: Path, folder: Path) -> None:
    """Create `cells`, BCCD with its test split added to its validation split, `cells-100` and `cells-rest`."""
    if not bccd.is_dir():
        raise SystemExit(f"{bccd} does not exist. docs/protocol.md says how to get it; --sets shapes needs none.")
    train, *held_out = (
        json.loads((bccd / "annotations" / f"instances_{split}.json").read_text()) for split in ("train", "val", "test")
    )
    sources = {
        image["file_name"]: bccd / split
        for split, part in zip(("val", "test"), held_out, strict=True)
        for image in part["images"]
    }
    sources |= {image["file_name"]: bccd / "train" for image in train["images"]}
    val = merged(held_out)
    names = sorted(image["file_name"] for image in train["images"])
    labelled = set(random.Random(0).sample(names, LABELLED_OF_ALL))
    for name, chosen in (("cells", set(names)), ("cells-100", labelled), ("cells-rest", set(names) - labelled)):
        if (folder / name).exists():
            continue
        target = folder / f".{name}"
        shutil.rmtree(target, ignore_errors=True)
        for split, content in (("train", subset(train, chosen)), ("val", val)):
            (target / split).mkdir(parents=True)
            (target / "annotations").mkdir(exist_ok=True)
            (target / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
            for image in content["images"]:
                shutil.copy(sources[image["file_name"]] / image["file_name"], target / split)
        target.rename(folder / name)


def subset(coco: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Return the images with these file names, and their annotations."""
    images = [image for image in coco["images"] if image["file_name"] in names]
    ids = {image["id"] for image in images}
    return coco | {"images": images, "annotations": [a for a in coco["annotations"] if a["image_id"] in ids]}


def merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the images and annotations of several COCO files with new ids. Their categories are the same."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for part in parts:
        ids = {image["id"]: len(images) + number for number, image in enumerate(part["images"])}
        images += [image | {"id": ids[image["id"]]} for image in part["images"]]
        annotations += [
            annotation | {"image_id": ids[annotation["image_id"]], "id": len(annotations) + number}
            for number, annotation in enumerate(part["annotations"])
        ]
    return {"images": images, "annotations": annotations, "categories": parts[0]["categories"]}


def train(spec: experiments.Spec, output: Path, name: str, threads: int = 1) -> str:
    """Train in a subprocess. Return the end of its output if it failed, else an empty string."""
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    command = [sys.executable, "-m", "frs", "train", str(folder / "spec.yaml"), "--workdir", str(folder), "--json"]
    started = time.monotonic()
    completed = subprocess.run(
        [*command, "--data", str(output / "data"), "--models", str(output / "models")],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    (folder / "seconds").write_text(f"{time.monotonic() - started:.0f}")
    if completed.returncode == 0:
        return ""
    return (completed.stdout + completed.stderr)[-1000:] or f"exit status {completed.returncode}"


def row_of(run: Run, folder: Path) -> Row:
    """Return the numbers of a completed run, without its commit."""
    emitted = [events.parse(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    evaluations = [event for event in emitted if isinstance(event, events.Evaluation)]
    students = [event for event in evaluations if event.role == "student"]
    teachers = [event for event in evaluations if event.role == "teacher"]
    facts: dict[str, Any] = {}
    for event in emitted:
        facts |= event.values if isinstance(event, events.Facts) else {}
    weights = facts.get("weights") or {}
    metrics = [event for event in emitted if isinstance(event, events.Metrics)]
    shares = {event.step: share for event in metrics if (share := event.values.get("train/share_feature")) is not None}
    ramp_end = weights.get("ramp_from", 0) + math.ceil(students[-1].step / 20)
    after_ramp = [share for step, share in shares.items() if step > ramp_end]
    coverage = [value for event in metrics for name, value in event.values.items() if name.startswith("train/coverage")]
    return {
        "arm": run.arm,
        "epochs": str(run.epochs),
        "seed": str(run.seed),
        "steps": str(students[-1].step),
        "mAP": _percent(students[-1].metrics["bbox_mAP"]),
        "mAP_50": _percent(students[-1].metrics["bbox_mAP_50"]),
        "mAP_75": _percent(students[-1].metrics["bbox_mAP_75"]),
        "halfway_mAP": _percent(students[0].metrics["bbox_mAP"]) if len(students) > 1 else "",
        "teacher_mAP": _percent(teachers[0].metrics["bbox_mAP"]) if teachers else "",
        "feature_weight": _significant(weights.get("feature")),
        "logit_weight": _significant(weights.get("logit")),
        "first_share": _significant(mean(after_ramp[:5])) if after_ramp else "",
        "last_share": _significant(mean(after_ramp[-5:])) if after_ramp else "",
        "coverage": _significant(mean(coverage)) if coverage else "",
        "minutes": f"{int((folder / 'seconds').read_text()) / 60:.1f}",
        "teacher": (facts.get("teacher_sha256") or "")[:8],
        "student": (facts.get("student_sha256") or "")[:8],
    }


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _significant(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _commit() -> str:
    """Return the commit of the code, with `-dirty` if a Python file is not committed."""
    root = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout

    dirty = "-dirty" if git("status", "--porcelain", "--", "*.py").strip() else ""
    return git("rev-parse", "--short", "HEAD").strip() + dirty


if __name__ == "__main__":
    main()
