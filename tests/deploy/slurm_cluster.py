"""A Slurm cluster of one node on this machine: slurmctld and slurmd with a configuration in a folder."""

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Self

from servers import free_port
from waiting import alive, until

CPUS, GPUS, KILL_WAIT_SECONDS = 4, 2, 30
"""The GPUs exist for Slurm alone."""
CONFIGURATION = """
ClusterName=frs
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
MpiDefault=none
ReturnToService=2
KillWait={kill_wait}
MinJobAge=300
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class SlurmCluster:
    """The cluster and its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, socket.gethostname().partition(".")[0]
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        values = {"host": self.host, "folder": self.folder, "cpus": CPUS, "gpus": GPUS, "kill_wait": KILL_WAIT_SECONDS}
        ports = {"controller_port": free_port(), "node_port": free_port()}
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(**values, **ports))
        for number in range(GPUS):
            (self.folder / f"gpu{number}").touch()
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-{GPUS - 1}]\n")
        for command in (["slurmctld", "-D"], ["slurmd", "-D", "-N", self.host]):
            log = (self.folder / f"{command[0]}.out").open("w")
            self._daemons.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))
        try:
            until(lambda: self._node_state() == "idle", 30, self.logs)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["scancel", "--me", "--signal=KILL", "--full"], env=self.environment, check=False)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)

    def run(self, *command: str) -> str:
        """Return the output of one of Slurm's commands."""
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def _node_state(self) -> str:
        result = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], env=self.environment, capture_output=True, text=True, timeout=30
        )
        return result.stdout.strip().rstrip("*")

    def tasks(self, name: str) -> list[str]:
        """Return the ids of the tasks of this name that have not ended."""
        options = ["--me", "--array", "--noheader", f"--name={name}", "--format=%F_%K"]
        return self.run("squeue", *options).split()

    def set_node(self, state: str) -> None:
        """Set the node's state: drain (no new tasks), down (its tasks are killed) or resume."""
        self.run("scontrol", "update", f"nodename={self.host}", f"state={state}", "reason=test")

    def step_daemon_of(self, pid: int) -> int:
        """Return the id of the slurmstepd that started this process."""
        while (name := Path(f"/proc/{pid}/comm").read_text().strip()) != "slurmstepd":
            assert pid > 1 and alive(pid), name
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return pid

    def logs(self) -> str:
        """Return the end of the daemons' logs."""
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))
