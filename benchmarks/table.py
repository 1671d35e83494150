"""Run the benchmarks that need no GPU and compare them with their goals; write bench/results.json.

    python benchmarks/table.py --only step

Each benchmark runs in its own process, one after the other. On a busy machine only the ratios are meaningful.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from service_process import has_postgresql

HERE = Path(__file__).parent
STEP_GOALS = {"retinanet": 1.40, "gfl": 1.50, "fcos": 1.50, "faster_rcnn": 1.40, "edge": 1.90}
GB = 1e9
PROGRAMS = {"posting": "wrk", "latency": "redis-server", "page": "chromium"}
"""Programs that a benchmark needs besides this package."""
NOT_MEASURED = "not measured"


class Row(NamedTuple):
    """A measurement: its name, goal, measured value, whether the goal is met, and a remark."""

    what: str
    goal: str
    measured: str
    met: bool
    aside: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*BENCHMARKS, *GROUPS])
    parser.add_argument("--results", type=Path, default=HERE.parent / "bench" / "results.json")
    options = parser.parse_args()
    console, rows, results = Console(), [], {}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    for name in GROUPS.get(options.only, [options.only]) if options.only else BENCHMARKS:
        for arguments in RUNS.get(name, [()]):
            with console.status(" ".join(["measuring", name, *arguments])):
                result = run(name, *arguments)
            if isinstance(result, Row):
                rows.append(result)
            else:
                results[" ".join([name, *arguments[1:]])] = result
                rows += BENCHMARKS[name](result, *arguments[1:])
            content = {"rows": [row._asdict() for row in rows], "measured": results}
            options.results.write_text(json.dumps(content, indent=1))  # each time: a benchmark takes minutes
    console.print(table(rows))
    if any(row.measured == NOT_MEASURED for row in rows):
        raise SystemExit(1)


def table(rows: list[Row]) -> Table:
    view = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("", "goal", "measured", ""):
        view.add_column(heading, no_wrap=True)
    view.add_column("", overflow="fold")
    for row in rows:
        view.add_row(row.what, row.goal, row.measured, "met" if row.met else "[red]missed[/red]", row.aside)
    return view


def step(result: dict[str, Any], detector: str, *_: str) -> list[Row]:
    """`aside`: the ratio of the authors' formulation, and the peak memory of plain, distilled and authors."""
    goal, ratio = STEP_GOALS[detector], result["ratio"]
    memory = "/".join(f"{result[f'{name}_bytes'] / GB:.1f}" for name in ("plain", "distilled", "authors"))
    aside = f"authors' {result['ratio_authors']:.2f}, teacher alone {result['ratio_teacher']:.2f}, {memory} GB"
    rows = [Row(f"step, {detector}", f"<= {goal:.2f} x plain", f"{ratio:.2f}", ratio <= goal, aside)]
    if detector == "edge":
        cached = result["ratio_cached"]
        rows.append(Row("step, edge, teacher cached", "<= 1.15 x plain", f"{cached:.2f}", cached <= 1.15))
    return rows


def evaluation(result: dict[str, Any]) -> list[Row]:
    ratio, equal = result["ratio"], result["equal"]
    return [
        Row("COCO evaluation", ">= 8 x as fast", f"{ratio:.1f}", ratio >= 8, f"as pycocotools; {result['ours']:.1f} s"),
        Row("equal numbers", "12", f"{equal}", equal == 12),
    ]


def dataset_check(result: dict[str, Any]) -> list[Row]:
    seconds, peak = result["seconds"], result["peak_bytes"] / GB
    return [
        Row("check of COCO's size", "<= 60 s", f"{seconds:.0f} s", seconds <= 60),
        Row("its memory", "<= 2 GB", f"{peak:.1f} GB", peak <= 2),
    ]


def loader(result: dict[str, Any]) -> list[Row]:
    share, aside = result["share"], f"{result['workers']} processes, {result['data']}"
    return [Row("waiting for data", "<= 5 % of the step", f"{share:.1%}", share <= 0.05, aside)]


def teacher_cache(result: dict[str, Any]) -> list[Row]:
    ratio, difference = result["ratio"], result["difference"]
    aside = f"of the step without, {result['bytes_per_image'] / 1e6:.1f} MB an image"
    return [
        Row("step, teacher's outputs kept", "< 1", f"{ratio:.2f}", ratio < 1, aside),
        Row("difference to what it sees", "0", f"{difference:g}", difference == 0),
    ]


def queries(result: dict[str, Any], database: str) -> list[Row]:
    """`aside`: the median, and the CPU time of the API, which other load on the machine does not affect."""
    rows = []
    for name, value in result.items():
        if isinstance(value, dict):
            goal, p95 = 100 if name.startswith("jobs") else 200, value["p95"]
            aside = f"p50 {value['p50']:.0f}, computed {value['cpu']:.0f} ms"
            rows.append(Row(f"{database}: {name}", f"p95 <= {goal} ms", f"{p95:.0f} ms", p95 <= goal, aside))
    return rows


def streams(result: dict[str, Any], jobs: str) -> list[Row]:
    name, kilobytes = f"{result['clients']} streams of {jobs} jobs", result["bytes_per_client"] / 1e3
    writing = f"p50 {result['p50']:.2f} s, of it writing up to {result['p99_of_writing']:.2f} s"
    received = f"{result['events']} of {result['expected']}"
    return [
        Row(name, "p99 <= 1 s", f"{result['p99']:.2f} s", result["p99"] <= 1, writing),
        Row("memory of each", "<= 40 kB", f"{kilobytes:.0f} kB", kilobytes <= 40, f"{result['cores']:.2f} of a core"),
        Row("received events", "all", received, result["events"] == result["expected"]),
    ]


def posting(result: dict[str, Any]) -> list[Row]:
    ratio, rate, p99 = result["ratio"], result["rate"], result["p99"]
    floor = f"{rate:.0f}/s beside {result['floor']:.0f}/s"
    lost = f"of {result['acknowledged']} acknowledged, killed three times"
    return [
        Row("POST /jobs", ">= 0.2 x bare floor", f"{ratio:.2f}", ratio >= 0.2, floor),
        Row("its p99", "<= 80 ms", f"{p99:.0f} ms", p99 <= 80, f"the floor's {result['p99_floor']:.0f} ms"),
        Row("refused under load", "0", f"{result['failed']}", result["failed"] == 0),
        Row("lost after kill -9", "0", f"{result['lost']}", result["lost"] == 0 < result["acknowledged"], lost),
    ]


def latency(result: dict[str, Any]) -> list[Row]:
    claim, without, cancel = result["claim"], result["claim_without"], result["cancel"]
    median = f"p99; median {result['claim_median'] * 1000:.0f} ms"
    return [
        Row("submit to claim, Redis", "<= 1 s", f"{claim:.2f} s", claim <= 1, median),
        Row("and without a broker", "<= 10 s", f"{without:.1f} s", without <= 10, "p99"),
        Row("cancel to process dead", "<= 15 s", f"{cancel:.1f} s", cancel <= 15, f"p99 of {result['cancels']}"),
    ]


def recording(result: dict[str, Any]) -> list[Row]:
    rate, surplus = result["rate"], result["surplus"]
    return [
        Row("metric rows recorded", ">= 20,000/s", f"{rate:,.0f}/s", rate >= 20_000, f"{result['sent']:,} sent"),
        Row("duplicate rows", "0", f"{surplus}", surplus == 0),
    ]


def steady(result: dict[str, Any]) -> list[Row]:
    return [
        Row(
            f"memory of the {name}",
            "+<= 1 MB/1000 jobs",
            f"{slope:+.2f} MB",
            slope <= 1,
            f"{result[f'{name}_mb']:.0f} MB",
        )
        for name in ("api", "worker")
        for slope in [result[f"{name}_slope"]]
    ]


def overhead(result: dict[str, Any]) -> list[Row]:
    share, parts = (
        result["share"],
        f"api {result['api']:.1f} s, worker {result['worker']:.1f} s, {result['trainer']:.0f} s",
    )
    return [Row("service beside training", "<= 0.02 of its CPU", f"{share:.3f}", share <= 0.02, parts)]


def predictions(result: dict[str, Any]) -> list[Row]:
    cold, p50, growth = result["cold"], result["p50"], result["growth"]
    aside = f"p99 {result['p99']:.2f} s; {result['ratio']:.1f} x the file without the service"
    return [
        Row("predict", "p50 <= 1 s", f"{p50:.3f} s", p50 <= 1, aside),
        Row("its first image", "<= 15 s", f"{cold:.1f} s", cold <= 15),
        Row(
            "memory of predict",
            "+<= 20 MB",
            f"{growth:+.1f} MB",
            growth <= 20,
            f"{result['mb']:.0f} MB, {result['requests']:.0f} images",
        ),
    ]


def page(result: dict[str, Any], *_: str) -> list[Row]:
    weight, heap = result["bytes"], result["heap"]
    growth = (heap[-1] - heap[0]) / (len(heap) - 1) / 1e6
    first = f"{weight['first view'] / 1e3:.0f} kB for the first view"
    return [
        *(
            Row(f"page: {name}", "<= 1.5 s", f"{result[name]['median']:.2f} s", result[name]["median"] <= 1.5)
            for name in ("overview", "jobs", "job", "curves")
        ),
        *(
            Row(
                f"live change: {kind}",
                "<= 2 s",
                f"{delay['largest']:.2f} s",
                delay["largest"] <= 2,
                f"the largest; median {delay['median']:.2f} s",
            )
            for kind, delay in result["live"].items()
        ),
        Row("its files", "<= 500 kB", f"{weight['all views'] / 1e3:.0f} kB", weight["all views"] <= 500e3, first),
        Row("heap of a live tab", "+<= 0.1 MB/min", f"{growth:+.2f} MB", growth <= 0.1, f"{heap[-1] / 1e6:.0f} MB"),
    ]


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
    "predictions": predictions,
    "page": page,
}
GROUPS = {"load": ["posting", "latency", "recording", "steady", "overhead", "queries", "streams"]}
RUNS: dict[str, list[tuple[str, ...]]] = {
    "step": [
        ("--detector", name, *(("--size", "320", "--batch", "8") if name == "edge" else ())) for name in STEP_GOALS
    ],
    "queries": [("--database", "sqlite"), *([("--database", "postgresql")] if has_postgresql() else [])],
    "streams": [("--jobs", "500"), ("--jobs", "100")],
    "page": [("--minutes", "5")],
}


def run(name: str, *arguments: str) -> dict[str, Any] | Row:
    """Return the result of a benchmark, or a row that says why there is none."""
    what = " ".join([name, *arguments])
    program = PROGRAMS.get(name)
    if program and shutil.which(program) is None:
        return Row(what, "", NOT_MEASURED, False, f"{program} is not installed: apt-get install {program}")
    command = [sys.executable, str(HERE / f"{name}.py"), *arguments, "--json"]
    completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if completed.returncode:
        return Row(what, "", NOT_MEASURED, False, f"exit status {completed.returncode}; the error is above")
    return json.loads(completed.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
