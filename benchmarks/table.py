"""Every goal that needs no GPU beside what was measured; also written to bench/results.json.

    python benchmarks/table.py --only step

Each runs in a process of its own, one after the other. On a machine with other work to do only the ratios mean something.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from service_process import has_postgresql

HERE = Path(__file__).parent
STEP_GOALS = {"retinanet": 1.40, "gfl": 1.50, "fcos": 1.50, "faster_rcnn": 1.40}
GB = 1e9


class Row(NamedTuple):
    what: str
    goal: str
    measured: str
    met: bool
    aside: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*BENCHMARKS, *GROUPS])
    parser.add_argument("--results", type=Path, default=HERE.parent / "bench" / "results.json")
    asked = parser.parse_args()
    console, rows, results = Console(), [], {}
    for name in GROUPS.get(asked.only, [asked.only]) if asked.only else BENCHMARKS:
        for arguments in RUNS.get(name, [()]):
            with console.status(" ".join(["measuring", name, *arguments])):
                found = _run(name, *arguments)
            results[" ".join([name, *arguments[1:]])] = found
            rows += BENCHMARKS[name](found, *arguments[1:])
    console.print(table(rows))
    asked.results.parent.mkdir(parents=True, exist_ok=True)
    asked.results.write_text(json.dumps({"rows": [row._asdict() for row in rows], "measured": results}, indent=1))


def table(rows: list[Row]) -> Table:
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("", "goal", "measured", ""):
        shown.add_column(heading, no_wrap=True)
    shown.add_column("", overflow="fold")
    for row in rows:
        shown.add_row(row.what, row.goal, row.measured, "met" if row.met else "[red]missed[/red]", row.aside)
    return shown


def step(found: dict[str, Any], detector: str) -> list[Row]:
    """`aside`: the authors' formulation, and the memory of plain, distilled and the authors'."""
    goal, ratio = STEP_GOALS[detector], found["ratio"]
    memory = "/".join(f"{found[f'{name}_bytes'] / GB:.1f}" for name in ("plain", "distilled", "authors"))
    aside = f"authors' {found['ratio_authors']:.2f}, {memory} GB"
    return [Row(f"step, {detector}", f"<= {goal:.2f} x plain", f"{ratio:.2f}", ratio <= goal, aside)]


def evaluation(found: dict[str, Any]) -> list[Row]:
    ratio, equal = found["ratio"], found["equal"]
    return [
        Row("COCO evaluation", ">= 8 x as fast", f"{ratio:.1f}", ratio >= 8, f"as pycocotools; {found['ours']:.1f} s"),
        Row("equal numbers", "12", f"{equal}", equal == 12),
    ]


def dataset_check(found: dict[str, Any]) -> list[Row]:
    seconds, peak = found["seconds"], found["peak_bytes"] / GB
    return [
        Row("check of COCO's size", "<= 60 s", f"{seconds:.0f} s", seconds <= 60),
        Row("its memory", "<= 2 GB", f"{peak:.1f} GB", peak <= 2),
    ]


def loader(found: dict[str, Any]) -> list[Row]:
    share, aside = found["share"], f"{found['workers']} processes, {found['data']}"
    return [Row("waiting for data", "<= 5 % of the step", f"{share:.1%}", share <= 0.05, aside)]


def teacher_cache(found: dict[str, Any]) -> list[Row]:
    ratio, difference = found["ratio"], found["difference"]
    aside = f"of the step without, {found['bytes_per_image'] / 1e6:.1f} MB an image"
    return [
        Row("step, teacher's outputs kept", "< 1", f"{ratio:.2f}", ratio < 1, aside),
        Row("difference to what it sees", "0", f"{difference:g}", difference == 0),
    ]


def queries(found: dict[str, Any], database: str) -> list[Row]:
    """`aside`: half of them, and the API's own processor time, which other work on the machine does not lengthen."""
    rows = {name: value for name, value in found.items() if isinstance(value, dict)}
    return [
        Row(
            f"{database}: {name}",
            "p95 <= 200 ms",
            f"{value['p95']:.0f} ms",
            value["p95"] <= 200,
            f"p50 {value['p50']:.0f}, computed {value['cpu']:.0f} ms",
        )
        for name, value in rows.items()
    ]


def streams(found: dict[str, Any], jobs: str) -> list[Row]:
    of_them, kilobytes = f"{found['clients']} streams of {jobs} jobs", found["bytes_per_client"] / 1e3
    writing = f"p50 {found['p50']:.2f} s, of it writing up to {found['p99_of_writing']:.2f} s"
    came = found["events"] / found["expected"]
    return [
        Row(of_them, "p99 <= 1 s", f"{found['p99']:.2f} s", found["p99"] <= 1, writing),
        Row("memory of each", "<= 40 kB", f"{kilobytes:.0f} kB", kilobytes <= 40, f"{found['cores']:.2f} of a core"),
        Row("events that came", ">= 99 %", f"{came:.1%}", came >= 0.99),
    ]


def posting(found: dict[str, Any]) -> list[Row]:
    ratio, rate, p99 = found["ratio"], found["rate"], found["p99"]
    floor = f"{rate:.0f}/s beside {found['floor']:.0f}/s"
    lost = f"of {found['acknowledged']} acknowledged, killed three times"
    return [
        Row("POST /jobs", ">= 0.3 x bare floor", f"{ratio:.2f}", ratio >= 0.3, floor),
        Row("its p99", "<= 60 ms", f"{p99:.0f} ms", p99 <= 60, f"the floor's {found['p99_floor']:.0f} ms"),
        Row("refused under load", "0", f"{found['failed']}", found["failed"] == 0),
        Row("lost after kill -9", "0", f"{found['lost']}", found["lost"] == 0 < found["acknowledged"], lost),
    ]


def latency(found: dict[str, Any]) -> list[Row]:
    claim, without, cancel = found["claim"], found["claim_without"], found["cancel"]
    median = f"p99; median {found['claim_median'] * 1000:.0f} ms"
    return [
        Row("submit to claim, Redis", "<= 1 s", f"{claim:.2f} s", claim <= 1, median),
        Row("and without a broker", "<= 10 s", f"{without:.1f} s", without <= 10, "p99"),
        Row("cancel to process dead", "<= 15 s", f"{cancel:.1f} s", cancel <= 15, f"p99 of {found['cancels']}"),
    ]


def recording(found: dict[str, Any]) -> list[Row]:
    rate, surplus = found["rate"], found["surplus"]
    return [
        Row("metric rows recorded", ">= 20,000/s", f"{rate:,.0f}/s", rate >= 20_000, f"{found['told']:,} told"),
        Row("rows too many, told twice", "0", f"{surplus}", surplus == 0),
    ]


def steady(found: dict[str, Any]) -> list[Row]:
    return [
        Row(
            f"memory of the {name}",
            "+<= 1 MB/1000 jobs",
            f"{slope:+.2f} MB",
            slope <= 1,
            f"{found[f'{name}_mb']:.0f} MB",
        )
        for name in ("api", "worker")
        for slope in [found[f"{name}_slope"]]
    ]


def overhead(found: dict[str, Any]) -> list[Row]:
    share, parts = found["share"], f"api {found['api']:.1f} s, worker {found['worker']:.1f} s, {found['trainer']:.0f} s"
    return [Row("service beside training", "<= 0.02 of its CPU", f"{share:.3f}", share <= 0.02, parts)]


BENCHMARKS: dict[str, Callable[..., list[Row]]] = {
    "step": step,
    "evaluation": evaluation,
    "dataset_check": dataset_check,
    "loader": loader,
    "teacher_cache": teacher_cache,
    "queries": queries,
    "streams": streams,
    "posting": posting,
    "latency": latency,
    "recording": recording,
    "steady": steady,
    "overhead": overhead,
}
GROUPS = {"load": ["posting", "latency", "recording", "steady", "overhead", "queries", "streams"]}
RUNS: dict[str, list[tuple[str, ...]]] = {
    "step": [("--detector", name) for name in STEP_GOALS],
    "queries": [("--database", "sqlite"), *([("--database", "postgresql")] if has_postgresql() else [])],
    "streams": [("--jobs", "2000"), ("--jobs", "100")],
}


def _run(name: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(HERE / f"{name}.py"), *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
