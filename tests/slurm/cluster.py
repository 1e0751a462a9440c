"""A real Slurm on this machine: munge, one controller, and several compute nodes with GPUs that are device files.

No systemd and no accounting database are needed. Everything lies in one temporary folder, except for three files in
``/etc/slurm``: job steps run without ``SLURM_CONF``, so that Slurm looks for its configuration there and nowhere else.
"""

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ETC = Path("/etc/slurm")
OURS = [ETC / name for name in ("slurm.conf", "gres.conf", "cgroup.conf")]
MARK = "# mergebench: a Slurm for tests on one machine, removed when they end; folder "
PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel", "sinfo", "srun")
SBIN = "/usr/sbin:/sbin"
NODES = ("n1", "n2", "n3")
PARTITIONS = ("gpu", "spare", "scavenge", "urgent")
REMEMBERED = 3600  # seconds; longer than the suite takes, so that tests can ask what became of every job
CPUS, GPUS, MEMORY_MB = 2, 4, 64_000

SLURM_CONF = """\
{mark}{folder}
ClusterName={folder.name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=8
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# Memory is enforced by sampling: a job above its request is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill
JobAcctGatherFrequency=task=2
AccountingStorageType=accounting_storage/none
# Answers within seconds, where a site would be content with minutes.
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=500000,defer_batch=0
MinJobAge={min_job_age}
OverTimeLimit=0
KillWait=5
InactiveLimit=0
SlurmdTimeout=10
MessageTimeout=30
ReturnToService=2
CompleteWait=0
# Jobs of `urgent` take the nodes of `spare` (its jobs are queued again) and of `scavenge` (its jobs end).
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
{nodes}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=spare Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=scavenge Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=100 PreemptMode=OFF
"""


class CannotStartError(Exception):
    """No Slurm of ours can run on this machine; the message says why."""


@dataclass
class Cluster:
    """A running Slurm. Use `start`, and `stop` it whatever happens."""

    folder: Path
    min_job_age: int = REMEMBERED
    ports: list[int] = field(default_factory=lambda: _free_ports(len(NODES) + 1))

    @classmethod
    def start(cls) -> "Cluster":
        """Start all daemons and wait until every node is idle.

        Raises:
            CannotStartError: the machine lacks a program or a right, has a Slurm of its own, or a daemon did not start.
        """
        check_machine()
        _clear_leftovers()
        cluster = cls(Path(tempfile.mkdtemp(prefix="mergebench-slurm-")))
        try:
            (cluster.folder / "owner").write_text(str(os.getpid()))
            cluster._start_munge()
            cluster._configure()
            cluster.start_controller()
            for node in NODES:
                cluster.start_node(node)
            cluster.until("all nodes are idle", lambda: cluster.node_states() == dict.fromkeys(NODES, "idle"), 60)
        except BaseException as error:
            logs = cluster._tails()
            cluster.stop()
            if isinstance(error, CannotStartError):
                raise CannotStartError(f"{error} {logs}") from None
            raise
        return cluster

    def stop(self) -> None:
        """End every daemon of this cluster and what still runs under it, and remove its files, also from /etc/slurm."""
        _stop_daemons(self.folder)
        _remove_configuration(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def heal(self) -> None:
        """End every job, and put daemons, nodes, partitions and settings back as `start` left them."""
        if not _process(self.folder / "slurmctld.pid"):
            self.start_controller()
        for node in NODES:
            if not _process(self.folder / f"slurmd-{node}.pid"):
                self.start_node(node)
        if self.min_job_age != REMEMBERED:
            self.remember(REMEMBERED)
        subprocess.run(["scancel", "--user=root"], check=True, timeout=60)
        for partition in PARTITIONS:
            scontrol("update", f"PartitionName={partition}", "State=UP")
        self.until("the queue is empty", lambda: squeue() == [], 60)
        for node, state in self.node_states().items():
            if state.startswith(("down", "drain")):
                scontrol("update", f"NodeName={node}", "State=RESUME")
        self.until("all nodes are idle", lambda: self.node_states() == dict.fromkeys(NODES, "idle"), 60)

    @contextlib.contextmanager
    def paused(self, partition: str) -> Iterator[None]:
        """Let a partition take jobs, but start none of them inside the block."""
        scontrol("update", f"PartitionName={partition}", "State=DOWN")
        try:
            yield
        finally:
            scontrol("update", f"PartitionName={partition}", "State=UP")

    # -- daemons -------------------------------------------------------------------------------------------

    def start_controller(self) -> None:
        """Start slurmctld and wait for its answer."""
        self._run("slurmctld", "-i")
        self.until("slurmctld answers", lambda: _answers("scontrol", "ping"), 30)

    def stop_controller(self) -> None:
        """End slurmctld; jobs go on."""
        _end(self.folder / "slurmctld.pid")

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node."""
        self._run("slurmd", "-N", node)

    def remember(self, seconds: int) -> None:
        """Change how long slurmctld remembers finished jobs."""
        self.min_job_age = seconds
        self._configure()
        scontrol("reconfigure")

    def _start_munge(self) -> None:
        """Our own munge daemon with our own key: the machine's, if it has one, is neither used nor changed."""
        folder = self.folder / "munge"
        folder.mkdir(mode=0o755)
        self.folder.chmod(0o755)
        self._run("mungekey", "--create", f"--keyfile={folder}/key")
        options = {"key-file": "key", "socket": "socket", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "seed"}
        self._run("munged", *(f"--{option}={folder}/{name}" for option, name in options.items()))

    def _configure(self) -> None:
        """Write the configuration: GPUs are character devices, since Slurm counts files that exist."""
        for name in ("state", "spool", "gpus"):
            (self.folder / name).mkdir(exist_ok=True)
        host = socket.gethostname()
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:a100:{GPUS}"
            for node, port in zip(NODES, self.ports[1:], strict=True)
        ]
        text = SLURM_CONF.format(
            mark=MARK, folder=self.folder, host=host, port=self.ports[0], nodes="\n".join(nodes), min_job_age=self.min_job_age
        )
        for node in NODES:
            for number in range(GPUS):
                _device(self.folder / "gpus" / f"{node}-{number}")
        lines = [f"NodeName={node} Name=gpu Type=a100 File={self.folder}/gpus/{node}-[0-{GPUS - 1}]" for node in NODES]
        ETC.mkdir(exist_ok=True)
        (ETC / "gres.conf").write_text("\n".join([f"{MARK}{self.folder}", *lines, ""]))
        (ETC / "cgroup.conf").write_text(f"{MARK}{self.folder}\nCgroupAutomount=no\n")
        (ETC / "slurm.conf").write_text(text)

    def node_states(self) -> dict[str, str]:
        """State of every node, as `sinfo` names it."""
        lines = subprocess.run(["sinfo", "-h", "-N", "-p", "gpu", "-o", "%N %T"], text=True, capture_output=True).stdout.split("\n")
        return dict(line.split() for line in lines if line)

    def _run(self, *command: str) -> None:
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:{SBIN}"}
        with (self.folder / "start.log").open("ab") as log:
            done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60)
        if done.returncode:
            raise CannotStartError(f"`{' '.join(command)}` ended with status {done.returncode}.")

    def until(self, what: str, ready: Callable[[], bool], seconds: float) -> None:
        """Wait for something to become so."""
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                raise CannotStartError(f"After {seconds:.0f} s it is still not so that {what}.")
            time.sleep(0.2)

    def _tails(self) -> str:
        logs = [*self.folder.glob("*.log"), *self.folder.glob("munge/*.log")]
        return " ".join(f"[{log.name}] {log.read_text(errors='replace')[-600:].strip()}" for log in logs)


def scontrol(*words: str) -> str:
    """Run scontrol; returns what it printed, and leaves its complaints to be seen in a test's output."""
    return subprocess.run(["scontrol", *words], check=True, text=True, stdout=subprocess.PIPE, timeout=60).stdout


def squeue() -> list[str]:
    """Numbers of the jobs that wait, run or are being ended."""
    return subprocess.run(["squeue", "-h", "-o", "%i"], check=True, text=True, stdout=subprocess.PIPE, timeout=60).stdout.split()


def check_machine() -> None:
    """Refuse where a Slurm of ours cannot run or would disturb another.

    Raises:
        CannotStartError: with the reason.
    """
    places = f"{os.environ['PATH']}:{SBIN}"
    absent = [program for program in PROGRAMS if shutil.which(program, path=places) is None]
    if absent:
        raise CannotStartError(f"{', '.join(absent)} not found; `apt-get install slurm-wlm munge` brings them on Debian and Ubuntu.")
    if os.geteuid() != 0:
        raise CannotStartError("not root, which starting slurmd and writing /etc/slurm takes.")
    if named := [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_"))]:
        raise CannotStartError(f"{', '.join(sorted(named))} in the environment belongs to another Slurm, which is left alone.")
    for path in OURS:
        if path.exists() and not path.read_text(errors="replace").startswith(MARK):
            raise CannotStartError(f"{path} belongs to a Slurm of this machine, which is left alone.")


def _clear_leftovers() -> None:
    """End the daemons of a test run that was killed, and remove its files. One that is alive is not disturbed."""
    path = ETC / "slurm.conf"
    if not path.exists():
        return
    folder = Path(path.read_text().partition("\n")[0].removeprefix(MARK))
    if owner := _process(folder / "owner"):
        raise CannotStartError(f"process {owner.pid} is running such a Slurm on this machine; wait for its end.")
    _stop_daemons(folder)
    _remove_configuration(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _stop_daemons(folder: Path) -> None:
    for pid_file in [folder / "slurmctld.pid", *folder.glob("slurmd-*.pid"), folder / "munge/munged.pid"]:
        _end(pid_file)
    for node in NODES:
        _kill_steps(folder, node)
    _kill_orphans(folder)


def _kill_steps(folder: Path, node: str) -> None:
    """Kill what runs on a node: the step daemons that write to the node's log, and all processes below them."""
    log = str(folder / f"slurmd-{node}.log")
    for daemon in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error):
            if daemon.info["name"] == "slurmstepd" and log in {file.path for file in daemon.open_files()}:
                for process in [daemon, *daemon.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()


def _kill_orphans(folder: Path) -> None:
    """Kill what is left of jobs: without cgroups, Slurm loses sight of processes whose parent has died."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SLURM_CLUSTER_NAME") == folder.name:
                process.kill()


def _remove_configuration(folder: Path) -> None:
    for path in OURS:
        if path.exists() and path.read_text().startswith(f"{MARK}{folder}\n"):
            path.unlink()


def _answers(*command: str) -> bool:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60).returncode == 0


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _device(path: Path) -> None:
    """A character device that stands for a GPU (a copy of /dev/null)."""
    if not path.exists():
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))


def _process(pid_file: Path) -> psutil.Process | None:
    """The living process of a pid file. A zombie is dead, and a number that another program got since is not ours."""
    try:
        process = psutil.Process(int(pid_file.read_text()))
        alive = process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= pid_file.stat().st_mtime + 1
    except (OSError, ValueError, psutil.Error):
        return None
    return process if alive else None


def _end(pid_file: Path) -> None:
    """End the process of a pid file, by force if it takes more than ten seconds."""
    process = _process(pid_file)
    if process is None:
        return
    process.terminate()
    deadline = time.monotonic() + 10
    while _process(pid_file):
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(0.05)
