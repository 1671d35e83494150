"""`python -m worker.tracking.wandb_process`: the run of one attempt in W&B. Requests on stdin, answers on stdout."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from frs.isolation.process import die_with_parent, hide_memory

INIT_SECONDS = 60.0
"""Time in which W&B has to create or find a run."""
FINAL_ERRORS = ("AuthenticationError", "UsageError", "ValidationError")
"""Errors of the package after which a repetition is of no use."""
Request = dict[str, Any]


class WandbRun:
    """The run, and the package, which is imported with the first request."""

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, request: Request) -> None:
        """Create or continue the run."""
        import wandb

        run, folder = request["run"], request["folder"]
        settings = wandb.Settings(
            api_key=request["api_key"],
            base_url=request["url"] or "https://api.wandb.ai",
            mode="online" if request["api_key"] else "offline",
            root_dir=folder,
            console="off",
            disable_code=True,
            disable_git=True,
            init_timeout=INIT_SECONDS,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        self._run = wandb.init(
            entity=request["entity"],
            project=request["project"],
            id=run["id"],
            name=run["name"],
            group=run["group"],
            job_type=run["kind"],
            tags=[tag for tag in dict.fromkeys(run["tags"]) if tag],  # W&B refuses runs with an empty tag
            config={**run["parameters"], "frs.owner": run["owner"]},
            resume="allow",
            settings=settings,
        )

    def points(self, request: Request) -> None:
        """Log the values of each step, except steps before the run's last one."""
        for point in request["points"]:
            if point["step"] >= self._run.step and point["values"]:
                self._run.log(point["values"], step=point["step"])

    def file(self, request: Request) -> None:
        """Move the file to the run's files and upload it."""
        source = Path(request["path"])
        target = source.replace(Path(self._run.dir, source.name))
        self._run.save(target, base_path=self._run.dir, policy="now")

    def end(self, request: Request) -> None:
        """Finish the run; return when everything is transferred."""
        self._run.summary.update({"frs/status": request["status"], "frs/end_reason": request["reason"]})
        if not request["is_terminal"]:
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if request["status"] == "succeeded" else 1)


def main() -> None:
    """Answer each request with one line: `{}`, `{"refused": REASON}` or `{"unavailable": REASON}`."""
    die_with_parent()
    hide_memory()  # the first request contains the API key
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the package prints
    run = WandbRun()
    for line in sys.stdin:
        answers.write(json.dumps(_answer(run, json.loads(line))) + "\n")


def _answer(run: WandbRun, request: Request) -> dict[str, str]:
    """Return the answer; a reason is the name of the error, whose text may quote the API key."""
    try:
        getattr(run, request["kind"])(request)
    except ImportError:
        return {"refused": "the package wandb is not installed on the worker: pip install 'frs-distill[wandb]'"}
    except Exception as error:
        name = type(error).__name__
        return {"refused" if name in FINAL_ERRORS else "unavailable": name}
    return {}


if __name__ == "__main__":
    main()
