"""A trainer without torch: options and line protocol of `python -m frs train`, a few milliseconds per step.

The job's metadata are its options:
  steps, seconds (per step), checkpoint_every
  crash_at: kill itself with SIGKILL at that step, in the attempts listed in crash_attempts (default "1", or "all")
  hang_at: sleep at that step and ignore SIGTERM;   spawn: leave a process in its group
  flood: number of lines of output;   garbage: print lines that are no events;   output: a line of output
  sleep_in: sleep before training;   hang_saving: sleep after half of that step's checkpoint is written
  exhaust_memory: allocate more memory than allowed
  fail: end with that error code and end reason;   exit: end with that exit code and without an outcome
  outside: report a checkpoint outside the work folder;   wrong_sha256: report a wrong SHA-256 of the student

For worker requests, the option `outcome` is "sleep", "die" or an error code.
"""

import argparse
import errno
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from frs import events
from frs.errors import StorageFull
from frs.isolation.process import die_with_parent
from frs.resolved import ResolvedSpec
from frs.training.stop_request import STOP_FILE

TRY_AGAIN = 75


class Stub:
    """The stub trainer of one job."""

    def __init__(self, spec: ResolvedSpec, workdir: Path, emit: events.Emit) -> None:
        self.spec, self.workdir, self.emit = spec, workdir, emit
        self.options = spec.job.metadata
        self.attempt = workdir.name
        self.steps = int(self.options.get("steps", "20"))
        self.every = int(self.options.get("checkpoint_every", "5"))
        self.stopping = False
        self.step, self.weight = self.load_newest_checkpoint()

    def run(self) -> int:
        """Train; like the engine, report a full disk as the outcome."""
        try:
            return self.train()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            storage_full = events.ErrorInfo(code=StorageFull.code, message="No space is left.")
            self.emit(events.Outcome(status="failed", end_reason="internal_error", error=storage_full))
            return 1

    def train(self) -> int:
        signal.signal(signal.SIGTERM, self.handle_sigterm)
        self.emit(events.Phase(phase="loading"))
        self.emit(events.Facts(values={"parameters": 1}))
        self.report_artifact("environ.json", json.dumps(dict(os.environ)))
        self.misbehave()
        self.emit(events.Rewound(to_step=self.step))
        self.emit(events.Phase(phase="training"))
        while self.step < self.steps:
            self.train_step()
            if self.stopping:
                self.save()
                self.emit(events.Outcome(status="interrupted"))
                return TRY_AGAIN
            if (self.workdir / STOP_FILE).exists():
                self.save()
                return self.finish("stopped_early")
            if self.step % self.every == 0:
                self.save()
        return self.finish()

    def handle_sigterm(self, *_: object) -> None:
        self.stopping = True

    def load_newest_checkpoint(self) -> tuple[int, float]:
        """Return step and weight of the newest checkpoint whose content has the SHA-256 in its name."""
        for path in sorted((self.workdir / "checkpoints").glob("step_*.pth"), reverse=True):
            if path.stem.rpartition("-")[2] == sha256(path)[:8]:
                content = json.loads(path.read_text())
                return content["step"], content["weight"]
        return 0, 0.0

    def train_step(self) -> None:
        step = self.step + 1
        if self.options.get("crash_at") == str(step) and self.crashes_now():
            os.kill(os.getpid(), signal.SIGKILL)
        if self.options.get("hang_at") == str(step):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3600)
        time.sleep(float(self.options.get("seconds", "0.002")))
        self.weight += random.Random(f"{self.spec.job.schedule.seed}/{step}").random()
        self.step = step
        self.emit(events.Metrics(step=step, epoch=0, values={"train/loss": self.weight, "train/empty": None}))
        fraction = step / self.steps
        self.emit(events.Progress(epoch=0, epochs=1, step=step, steps=self.steps, fraction=fraction))

    def crashes_now(self) -> bool:
        attempts = self.options.get("crash_attempts", "1")
        return attempts == "all" or self.attempt in attempts.split(",")

    def misbehave(self) -> None:
        if "sleep_in" in self.options:
            time.sleep(3600)
        if "exhaust_memory" in self.options:
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
            bytearray(1 << 31)
        if "output" in self.options:
            print(self.options["output"])
        if "spawn" in self.options:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], close_fds=False)
            self.emit(events.Facts(values={"spawned": child.pid}))
        for number in range(int(self.options.get("flood", "0"))):
            print(f"line {number}")
        if "outside" in self.options:
            outside = Path(self.options["outside"])
            self.report_checkpoint("training", outside, sha256(outside))
        if "garbage" in self.options:
            print_garbage()
        if "exit" in self.options:
            print("final output", file=sys.stderr)
            raise SystemExit(int(self.options["exit"]))

    def finish(self, end_reason: str = "completed") -> int:
        if "fail" in self.options:
            error = events.ErrorInfo(code=self.options["fail"], message="As the test requests.")
            self.emit(events.Outcome(status="failed", end_reason=self.options["fail"], error=error))
            return 1
        scores = {"bbox_mAP": 0.5, "bbox_mAP_l": None}
        self.emit(
            events.Evaluation(
                role="student",
                step=self.step,
                epoch=0,
                metrics=scores,
                per_class={"box": 0.5},
                images=2,
                detections=3,
                last=True,
            )
        )
        student = write(self.workdir / "student" / "student.pth", json.dumps({"weight": self.weight}))
        digest = "0" * 64 if "wrong_sha256" in self.options else sha256(student)
        self.report_checkpoint("student", student, digest, ("best", "last"))
        self.emit(events.Outcome(status="succeeded", end_reason=end_reason))
        return 0

    def save(self) -> None:
        text = json.dumps({"step": self.step, "weight": self.weight})
        digest = hashlib.sha256(text.encode()).hexdigest()
        folder = self.workdir / "checkpoints"
        if self.options.get("hang_saving") == str(self.step):
            (folder / ".half.tmp").write_text(text[: len(text) // 2])
            time.sleep(3600)
        path = write(folder / f"step_{self.step:08d}-{digest[:8]}.pth", text)
        self.report_checkpoint("training", path, digest)
        for old in sorted(folder.glob("step_*.pth"))[:-2]:
            old.unlink()

    def report_artifact(self, name: str, text: str) -> None:
        path = write(self.workdir / name, text)
        size = path.stat().st_size
        self.emit(events.Artifact(name=name, path=name, sha256=sha256(path), bytes=size))

    def report_checkpoint(self, kind: str, path: Path, digest: str, labels: tuple[str, ...] = ()) -> None:
        relative_path = os.path.relpath(path, self.workdir)
        size = path.stat().st_size
        self.emit(
            events.Checkpoint(
                kind=kind, path=relative_path, sha256=digest, bytes=size, step=self.step, epoch=0, labels=labels
            )
        )


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.tmp")
    part.write_text(text)
    part.rename(path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def print_garbage() -> None:
    """Print invalid JSON, no event, an event that no database can store, a very long line and invalid UTF-8."""
    stream.write('hello\n{"type": "metrics"}\n[[[[\n')
    stream.write('{"type": "metrics", "step": 1' + "0" * 30 + ', "epoch": 0, "values": {"train/a": 1}}\n')
    stream.write("x" * (2 * events.MAX_LINE) + "\n")
    stream.flush()
    sys.stdout.buffer.write(b"\xff\xfe\x00 \x1b[31mred\r\n" + b"y" * 100_000 + b"\n")
    sys.stdout.flush()


def worker_request(emit: events.Emit, values: dict[str, object]) -> int:
    """End with the outcome that the file or the spec requests: "sleep", "die", an error code, or success by default."""
    outcome = str(values.pop("outcome", ""))
    if outcome == "sleep":
        emit(events.Phase(phase="probing"))
        time.sleep(3600)
    if outcome == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if outcome:
        error = events.ErrorInfo(code=outcome, message="As the test requests.")
        emit(events.Outcome(status="failed", error=error))
        return 1
    emit(events.Facts(values=values))
    emit(events.Outcome(status="succeeded"))
    return 0


def plan(options: argparse.Namespace, emit: events.Emit) -> int:
    spec = ResolvedSpec.model_validate_json(options.spec.read_bytes())
    return worker_request(emit, {"ok": True, "outcome": spec.job.metadata.get("outcome", "")})


def import_weights(options: argparse.Namespace, emit: events.Emit) -> int:
    content = options.source.read_text()
    assert sha256(options.source) == options.sha256
    write(options.target, f"imported {content}")
    outcome = content if content in ("die", "sleep", "weights_unreadable") else ""
    return worker_request(
        emit, {"sha256": sha256(options.target), "classes": options.classes or ["box"], "outcome": outcome}
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "plan"):
        command = commands.add_parser(name)
        command.add_argument("--spec", type=Path, required=True)
        command.add_argument("--workdir", type=Path)
        command.add_argument("--events-fd", type=int, required=True)
    command = commands.add_parser("import-weights")
    command.add_argument("source", type=Path)
    command.add_argument("target", type=Path)
    command.add_argument("--sha256")
    command.add_argument("--description", type=json.loads)
    command.add_argument("--classes", type=json.loads)
    command.add_argument("--events-fd", type=int, required=True)
    options = parser.parse_args()
    die_with_parent()
    stream = os.fdopen(options.events_fd, "w", buffering=1)
    emit = events.lines_to(stream)
    if options.command == "train":
        resolved = ResolvedSpec.model_validate_json(options.spec.read_bytes())
        sys.exit(Stub(resolved, options.workdir, emit).run())
    sys.exit({"plan": plan, "import-weights": import_weights}[options.command](options, emit))
