"""Draw the runs of a question, one line per seed from the student alone to the distilled one.

python benchmarks/results_pictures.py --arm "frs 100" docs/pictures/seeds.png
"""

import argparse
from pathlib import Path

import matplotlib as mpl
from experiments import STUDIES, TEST_SEEDS
from results_tables import Row, read

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--arm", default="frs 100")
    parser.add_argument("--sets", nargs="+", choices=STUDIES, default=["cells", "shapes"])
    options = parser.parse_args()
    figure, panels = plt.subplots(1, len(options.sets), figsize=(4.2 * len(options.sets), 3.8), squeeze=False)
    for axes, study in zip(panels[0], options.sets, strict=True):
        draw(axes, study, options.arm)
    figure.tight_layout()
    figure.savefig(options.picture, dpi=110)


def draw(axes: Axes, study: str, arm: str) -> None:
    """Draw the pairs of one set on its test seeds, and the teacher."""
    rows = [row for row in read(study) if int(row["epochs"]) == STUDIES[study].epochs]
    alone, distilled = _by_seed(rows, "none"), _by_seed(rows, arm)
    for seed in sorted(alone.keys() & distilled.keys()):
        axes.plot([0, 1], [alone[seed], distilled[seed]], "o-", color="#0072b2", alpha=0.6)
    axes.axhline(float(next(row["teacher_mAP"] for row in rows if row["arm"] == arm)), color="#7a7a7a", linestyle="--")
    axes.set(xticks=[0, 1], xticklabels=["alone", arm], xlim=(-0.3, 1.3), title=f"{study}, {len(distilled)} seeds")
    axes.set_ylabel("mAP (dashed: the teacher)")


def _by_seed(rows: list[Row], arm: str) -> dict[int, float]:
    seeds = {int(row["seed"]): float(row["mAP"]) for row in rows if row["arm"] == arm}
    return {seed: mAP for seed, mAP in seeds.items() if seed in TEST_SEEDS}


if __name__ == "__main__":
    main()
