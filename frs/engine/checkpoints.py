"""Training checkpoints. A resumed run equals an uninterrupted one; the two newest checkpoints are kept."""

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.runner import set_random_seed

from frs.detectors import weights
from frs.detectors.weights import SavedFile
from frs.engine.loop import LoopState
from frs.errors import CheckpointUnusable, WeightsUnreadable
from frs.files import digest
from frs.training.process_group import rank

FORMAT = 1
KEEP = 2


class Checkpoints:
    """The checkpoints in a folder, all of runs with the same `identity`."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.identity = identity
        """Hash of the spec and its inputs; a checkpoint with another identity is rejected."""

    def save(self, runner: Any, random_states: list[dict[str, Any]]) -> SavedFile:
        """Write the runner's state after `runner.iter` steps and delete all but the newest checkpoints.

        `random_states` has the `random_state()` of every process, in the order of ranks.
        """
        content = {
            "format": FORMAT,
            "identity": self.identity,
            "step": runner.iter,
            "model": runner.model.state_dict(),
            "optimizer": runner.optim_wrapper.state_dict(),
            "schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
            "random": random_states[0],
            "random_of_others": random_states[1:],
            "memory": asdict(runner.train_loop.state),
        }
        if runner.train_loop.average is not None:
            content["average"] = runner.train_loop.average.state_dict()
        saved = weights.write(content, self.folder / f"step_{runner.iter:08d}-{{sha8}}.pth")
        self._prune()
        return saved

    def newest(self) -> dict[str, Any] | None:
        """Return the newest intact checkpoint, or None. Truncated and altered files are skipped.

        Raises CheckpointUnusable if it belongs to another spec or format.
        """
        for path in reversed(self._files()):
            try:
                content = weights.read(path)
            except WeightsUnreadable:
                continue
            if not digest(path).startswith(path.stem.rpartition("-")[2]):
                continue
            if content.get("format") != FORMAT or content.get("identity") != self.identity:
                raise CheckpointUnusable(f"{path.name} in the work folder belongs to another spec.")
            return content
        return None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step_*.pth"))

    def _prune(self) -> None:
        incomplete = self.folder.glob(".step_*.tmp")
        for path in [*self._files()[:-KEEP], *incomplete]:
            path.unlink()


def restore(runner: Any, content: dict[str, Any]) -> None:
    """Set the runner to the state of the checkpoint.

    A process without a random state in the checkpoint gets a new seed from the step and its rank.
    """
    runner.model.load_state_dict(content["model"])
    runner.optim_wrapper.load_state_dict(content["optimizer"])
    for scheduler, state in zip(runner.param_schedulers, content["schedulers"], strict=True):
        scheduler.load_state_dict(state)
    runner.train_loop.iter, runner.train_loop.state = content["step"], LoopState.from_checkpoint(content["memory"])
    if runner.train_loop.average is not None:
        runner.train_loop.average.load_state_dict(content["average"])
    states = random_states_in(content)
    if rank() < len(states):
        set_random_state(states[rank()])
    else:
        set_random_seed(content["step"], diff_rank_seed=True)


def random_states_in(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the random states in a checkpoint, one for each process of the run that wrote it."""
    return [content["random"], *content.get("random_of_others", [])]


def random_state() -> dict[str, Any]:
    """Return the state of the global generators of Python, NumPy, torch and the process's GPU.

    The state consists of plain values and tensors, so that it can be read without unpickling.
    """
    _, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": {"keys": torch.from_numpy(np.asarray(keys).astype(np.int64)), "rest": (position, has_gauss, gauss)},
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set the global generators to a state from `random_state`."""
    random.setstate(state["python"])
    np.random.set_state(("MT19937", state["numpy"]["keys"].numpy().astype(np.uint32), *state["numpy"]["rest"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"][0])
