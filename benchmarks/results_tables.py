"""Keep the numbers of the runs in `benchmarks/results/SET.csv`, one row per run, and make tables of them."""

import csv
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import geometric_mean, mean, stdev

import experiments
from experiments import STUDIES, TUNING_SEEDS

from frs.comparison.compare import seed_interval
from frs.evaluation.verdict import verdict_of

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    "arm",
    "epochs",
    "seed",
    "steps",
    "mAP",
    "mAP_50",
    "mAP_75",
    "halfway_mAP",
    "teacher_mAP",
    "feature_weight",
    "logit_weight",
    "first_share",
    "last_share",
    "coverage",
    "minutes",
    "teacher",
    "student",
    "commit",
)
"""mAP in percent. `first_share` and `last_share`: gradient ratio of the feature term after the ramp and at the end,
means over five diagnoses; `coverage`: mean richness over the levels; `teacher` and `student`: start of the weights'
SHA-256.
"""
JOBS = ("raccoons",)
"""Sets of questions 10 and 11, whose runs are jobs of the service; a run that was paused has the commit of its end."""
Row = dict[str, str]
MIN_SEEDS = 5
"""Seeds from which an arm has a verdict."""
MIN_LEAD = 5.0
"""Lead of a teacher over the best student alone, in mAP points, below which an arm has no verdict."""


def read(study: str) -> list[Row]:
    """Return the rows of a study, sorted by length, arm and seed."""
    path = RESULTS / f"{study}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return sorted(rows, key=_order)


def _order(row: Row) -> tuple[int, bool, str, str, int]:
    return int(row["epochs"]), row["arm"] != "none", row["arm"], row["teacher"], int(row["seed"])


def append(study: str, row: Row) -> None:
    """Add a row to the results of a study."""
    RESULTS.mkdir(exist_ok=True)
    rows = [*read(study), row]
    part = RESULTS / f".{study}.csv"
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(RESULTS / f"{study}.csv")


def tables() -> str:
    """Return one Markdown table for each set, length and kind of seeds."""
    parts = []
    for study in (*STUDIES, *JOBS):
        for _, group in groupby(_read_with_baseline(study), key=lambda row: row["epochs"]):
            rows = list(group)
            for kind, tuning in (("test seeds", False), ("tuning seeds", True)):
                chosen = [row for row in rows if (int(row["seed"]) >= min(TUNING_SEEDS)) == tuning]
                if chosen:
                    parts.append(_table(f"{study}, {chosen[0]['steps']} steps, {kind}", chosen))
    return "\n\n".join(parts)


def _read_with_baseline(study: str) -> list[Row]:
    """Return the rows of a study, with those of `none` from the study that has its baseline."""
    rows, other = read(study), STUDIES[study].baseline if study in STUDIES else None
    baseline = [row for row in read(other) if row["arm"] == "none"] if rows and other else []
    return sorted([*baseline, *rows], key=_order)


def tuning_table(arms: Sequence[str]) -> str:
    """Return the protocol's score of each arm on the tuning seeds as a Markdown table, the highest first.

    On a set, it is the mean gain divided by the largest mean gain of the arms. Arms that lack a run are left out.
    """
    gains = {study: _tuning_gains(study, arms) for study in experiments.BOTH}
    complete = [arm for arm in arms if all(arm in gains[study] for study in gains)]
    if not complete:
        return "No arm has all its tuning runs."
    best = {study: max(gains[study][arm] for arm in complete) for study in gains}
    scores = {arm: mean(gains[study][arm] / best[study] for study in gains) for arm in complete}
    lines = [
        f"| setting | {' | '.join(f'gain, {study}' for study in gains)} | score |",
        "|---|" + "---|" * len(gains) + "---|",
    ]
    for arm in sorted(complete, key=lambda arm: -scores[arm]):
        values = " | ".join(f"{gains[study][arm]:+.1f}" for study in gains)
        lines.append(f"| `{arm}` | {values} | {scores[arm]:.3f} |")
    return "\n".join(lines)


def _tuning_gains(study: str, arms: Sequence[str]) -> dict[str, float]:
    """Return the mean gain over the tuning seeds, in mAP points, of each arm that has all its runs."""
    epochs = str(STUDIES[study].epochs)
    mAP = {(row["arm"], int(row["seed"])): float(row["mAP"]) for row in read(study) if row["epochs"] == epochs}
    return {
        arm: mean(mAP[arm, seed] - mAP["none", seed] for seed in TUNING_SEEDS)
        for arm in arms
        if all((name, seed) in mAP for name in (arm, "none") for seed in TUNING_SEEDS)
    }


def _table(title: str, rows: list[Row]) -> str:
    baseline = {row["seed"]: float(row["mAP"]) for row in rows if row["arm"] == "none"}
    teachers = {
        row["teacher"]: row["teacher_mAP"]
        for row in rows
        if row["teacher"] and row["arm"] != experiments.RANDOM_TEACHER
    }
    lines = [
        f"| {title} | seeds | mAP | gain over `none`, same seeds | 95 % interval | verdict | feature weight |",
        "|---|---|---|---|---|---|---|",
        *(f"| teacher {name} | | {mAP} | | | | |" for name, mAP in teachers.items()),
    ]
    for (arm, teacher), group in groupby(rows, key=lambda row: (row["arm"], row["teacher"])):
        several = len(teachers) > 1 and teacher in teachers
        lines.append(_line(f"`{arm}`{f' under {teacher}' if several else ''}", list(group), baseline))
    return "\n".join(lines)


def _line(label: str, rows: list[Row], baseline: dict[str, float]) -> str:
    """Return the line of one arm. Its verdict follows the protocol: enough seeds, and a teacher that leads."""
    scores = [float(row["mAP"]) for row in rows]
    spread = f" ± {stdev(scores):.1f}" if len(scores) > 1 else ""
    cells = [label, str(len(rows)), f"{mean(scores):.1f}{spread}", "", "", "", _weights(rows)]
    gains = [float(row["mAP"]) - baseline[row["seed"]] for row in rows if row["seed"] in baseline]
    if rows[0]["arm"] != "none" and gains:
        cells[3] = f"{mean(gains):+.1f}"
        interval = seed_interval([gain / 100 for gain in gains])
        if interval is not None:
            cells[4] = f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"
            cells[5] = verdict_of(interval).replace("_", " ") if interval.n >= MIN_SEEDS else "too few seeds"
        if float(rows[0]["teacher_mAP"]) < max(baseline.values()) + MIN_LEAD:
            cells[5] = "weak teacher"
    return f"| {' | '.join(cells)} |"


def _weights(rows: list[Row]) -> str:
    """Return the feature weight that `auto` found, and the factor between its largest and smallest value."""
    weights = [float(row["feature_weight"]) for row in rows if row["feature_weight"]]
    if not weights:
        return ""
    factor = f", x {max(weights) / min(weights):.2f}" if len(weights) > 1 else ""
    return f"{geometric_mean(weights):.2g}{factor}"
