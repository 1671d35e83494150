"""The hosts ("nodes") of one job: the first node runs the trainer, `python -m frs join` runs on each other one.

They meet at a TCPStore of torch that the trainer on the first node opens at MASTER_ADDR:MASTER_PORT, as with torchrun.
The store holds the job, a counter of each other node that shows that it is alive, and how its part ended; the
processes of all nodes rendezvous there, too.
"""

import socket
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel
from torch.distributed import DistError, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from frs.engine.place import Place
from frs.errors import FileNotOnNode, NodesUnavailable
from frs.events import Outcome
from frs.resolved import ResolvedSpec

JOIN_SECONDS = 300.0
"""Time in which the other nodes must have joined."""
LOST_SECONDS = 30.0
"""A node that has not shown for this long that it is alive is lost."""
ENDED_SECONDS = 5.0
"""Time in which the processes of a node end by themselves after the first node has ended."""
BEAT_SECONDS = 1.0
"""Interval of the exchange between the nodes."""
CONNECT_SECONDS = 5.0
"""Timeout of one attempt to connect to the first node."""
GROUP = "group"
"""Prefix of the keys of the process group."""


class Job(BaseModel):
    """What the first node sends to the others. All paths are absolute."""

    spec: ResolvedSpec
    workdir: Path


class FirstNodeEnded(Exception):
    """The first node has ended the attempt, or cannot be reached any more."""


class FirstNode:
    """The first node's view of the others: it sends them the job, and notices their failures and their loss."""

    def __init__(self, place: Place, spec: ResolvedSpec, workdir: Path) -> None:
        """Open the store, and make the job available in it. Raises NodesUnavailable."""
        self._place = place
        try:
            self._store = _open_store(place, is_server=True)
        except DistError as error:
            reason = str(error).splitlines()[0]
            raise NodesUnavailable(f"Port {place.port} of this host cannot be opened: {reason}") from None
        now = time.monotonic()
        self._beats = dict.fromkeys(range(1, spec.job.resources.nodes), 0)
        """Number of signs of life of each node that has not ended yet."""
        self._lost_at = dict.fromkeys(self._beats, now + JOIN_SECONDS)
        self._check_at = now
        absolute = spec.model_copy(update={"models": spec.models.resolve()})
        self._store.set("job", Job(spec=absolute, workdir=workdir.resolve()).model_dump_json())

    def failure_elsewhere(self) -> Outcome | None:
        """Return the outcome of a node that has failed, if there is one. Raises NodesUnavailable if one is lost."""
        now = time.monotonic()
        if now < self._check_at:
            return None
        self._check_at = now + BEAT_SECONDS
        for node in [*self._beats]:
            if self._store.check([f"outcome/{node}"]):
                del self._beats[node]
                outcome = Outcome.model_validate_json(self._store.get(f"outcome/{node}"))
                if outcome.status == "failed":
                    return outcome
            else:
                self._check_is_alive(node, now)
        return None

    def _check_is_alive(self, node: int, now: float) -> None:
        beats = self._store.add(f"beats/{node}", 0)
        if beats > self._beats[node]:
            self._beats[node], self._lost_at[node] = beats, now + LOST_SECONDS
        elif now > self._lost_at[node]:
            if beats:
                raise NodesUnavailable(f"Node {node} has not answered for {LOST_SECONDS:.0f} s.")
            at = f"{self._place.host}:{self._place.port}"
            raise NodesUnavailable(f"Node {node} did not join at {at} within {JOIN_SECONDS:.0f} s.")


class OtherNode:
    """Another node's view of the first one."""

    def __init__(self, place: Place, wait_seconds: float) -> None:
        """Wait for the job of the first node, and take part in it from now on. Raises NodesUnavailable."""
        self.place = place
        self._store = _connect(place, wait_seconds)
        try:
            self.job = Job.model_validate_json(self._store.get("job"))
            joined = self._store.add(f"joined/{place.node}", 1)
        except DistError:
            raise NodesUnavailable("The first node has ended.") from None
        nodes = self.job.spec.job.resources.nodes
        if not 0 < place.node < nodes:
            raise NodesUnavailable(f"There is no node {place.node} to join: the job has the nodes 0 to {nodes - 1}.")
        if joined > 1:
            raise NodesUnavailable(f"Node {place.node} has joined already.", "Give each node a number of its own.")
        self._beat_at = 0.0
        self._gone_since: float | None = None
        """Time since which the first node does not answer; its processes may end a moment before those of this node."""

    def check_files(self) -> None:
        """Raise FileNotOnNode if a file or folder of the job does not exist here."""
        spec = self.job.spec
        splits = [split for split in (spec.train, spec.val, spec.unlabelled) if split]
        files = [path for split in splits for path in (split.annotations, split.images)]
        weights = [detector.weights for detector in (spec.student, spec.teacher) if detector and detector.weights]
        for path in (self.job.workdir, *files, *weights):
            if not path.exists():
                raise FileNotOnNode(f"Node {self.place.node} ({socket.gethostname()}) has no {path}.")

    def failure_elsewhere(self) -> None:
        """Show that this node is alive. Raises FirstNodeEnded `ENDED_SECONDS` after the first node has ended."""
        now = time.monotonic()
        if self._gone_since is not None and now > self._gone_since + ENDED_SECONDS:
            raise FirstNodeEnded("The first node has ended the attempt, or cannot be reached.")
        if self._gone_since is not None or now < self._beat_at:
            return
        self._beat_at = now + BEAT_SECONDS
        try:
            self._store.add(f"beats/{self.place.node}", 1)
        except DistError:
            self._gone_since = now

    def report(self, outcome: Outcome) -> None:
        """Send how this node's part ended; it does nothing if the first node has ended."""
        try:
            self._store.set(f"outcome/{self.place.node}", outcome.model_dump_json())
        except DistError:
            return


def open_group_store(place: Place) -> Store:
    """Return the store of the process group. Raises DistError."""
    return PrefixStore(GROUP, _open_store(place))


def _connect(place: Place, wait_seconds: float) -> Store:
    """Connect to the store of the first node, which opens it when its trainer starts. Raises NodesUnavailable.

    Plain sockets find out whether it is open: torch prints a stack for each attempt in vain.
    """
    until = time.monotonic() + wait_seconds
    while True:
        with suppress(OSError, DistError):
            socket.create_connection((place.host, place.port), CONNECT_SECONDS).close()
            return _open_store(place)
        if time.monotonic() > until:
            at = f"{place.host}:{place.port}"
            raise NodesUnavailable(f"No job of several nodes has started at {at} within {wait_seconds:g} s.")
        time.sleep(BEAT_SECONDS)


def _open_store(place: Place, *, is_server: bool = False) -> Store:
    """Connect to the store of the first node or, there, open it. Raises DistError."""
    timeout = timedelta(seconds=LOST_SECONDS)
    return TCPStore(place.host, place.port, is_master=is_server, timeout=timeout, wait_for_workers=False)
