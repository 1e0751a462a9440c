"""Run a stage as several tasks that share its work: one process per GPU, on one node or several.

`mergebench run train --tasks N` is the launcher. Inside a Slurm allocation it starts the tasks with ``srun``,
elsewhere as N processes on this machine. It holds the lease, keeps the account of the attempt and publishes; task 0
writes the outputs; the other tasks write nothing but their shares of a checkpoint. A task finds its place in the
variables that torch.distributed reads: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

A task that fails ends the others at once, and its error is that of the job. Signals are passed on to every task.
"""

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergebench.artifacts import Job, lease, write_json
from mergebench.attempts import AGAIN, Interrupted, interruptible, reason, signalled
from mergebench.costs import PeakMemory, gpus_visible, process_usage
from mergebench.energy import EnergyMeter
from mergebench.errors import MergebenchError

SHARED = ("train", "statistics")  # the stages whose work several tasks can share
FORWARDED = (signal.SIGTERM, signal.SIGUSR1)
PORTS = range(20_000, 30_000)  # below those that systems hand out by themselves
POLL_SECONDS = 0.1
PATIENCE = 30.0  # seconds that `srun` has to end its tasks
PR_SET_PDEATHSIG = 1  # prctl(2)
FAILED = 1
LOST_PEER = re.compile("connection|nccl|gloo", re.IGNORECASE)  # what a task says when another has gone


@dataclass(frozen=True)
class Tasks:
    """Stands for a stage: starts the tasks and hands on what task 0 has made."""

    words: Sequence[str]  # the command line of `mergebench`, which every task repeats
    tasks: int
    nodes: int
    threads: int

    def run(self, job: Job) -> dict[str, Any]:
        """Do the work of `job` in tasks.

        Raises:
            Interrupted: a signal ended the tasks; with status 75 their state is saved.
            MergebenchError: a task failed or was killed, or the request cannot be met here.
        """
        self._check(job)
        folder = Path(tempfile.mkdtemp(prefix="tasks-", dir=job.state)).resolve()
        try:
            caught, failure = self._run_all(job, folder)
            records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        records.sort(key=lambda record: record["rank"])
        _raise_for(records, caught, failure, self.tasks)
        job.ranks.extend(record["usage"] for record in records)
        job.timings.update(records[0]["timings"])
        job.memory.update(records[0]["memory"])
        job.adopt({name: Path(path) for name, path in records[0]["staged"].items()})
        payload: dict[str, Any] = records[0]["payload"]
        return payload

    def _check(self, job: Job) -> None:
        if job.stage not in SHARED:
            raise MergebenchError(
                f"stage {job.stage} runs as one task, --tasks {self.tasks} was asked; only {' and '.join(SHARED)} can be shared."
            )
        if self.tasks % self.nodes:
            raise MergebenchError(f"--tasks {self.tasks} do not spread evenly over --nodes {self.nodes}; ask for a multiple.")
        if in_slurm():
            return
        if self.nodes > 1:
            raise MergebenchError(f"--nodes {self.nodes} needs a Slurm allocation and srun on the PATH; here there is one machine.")
        if 0 < gpus_visible() < self.tasks:
            raise MergebenchError(
                f"--tasks {self.tasks} need a GPU each, and {gpus_visible()} are visible; "
                "ask for as many, or hide them (CUDA_VISIBLE_DEVICES=) to work on the CPU."
            )

    def _run_all(self, job: Job, folder: Path) -> tuple[list[int], int]:
        """Start the tasks and wait for them; returns the signals that came and the first failing exit status."""
        command = [sys.executable, "-m", "mergebench.launch", str(folder), *self.words]
        if in_slurm():
            processes = [_start([*self.srun(job.requested.get("gpu", 0)), *command], {})]
            stop = signal.SIGINT  # on which `srun` ends its tasks
        else:
            port = _free_port()
            processes = [_start(command, local_place(rank, self.tasks, port)) for rank in range(self.tasks)]
            stop = signal.SIGKILL
        with _forwarding(processes, stop, job.state) as caught:
            return caught, _first_failure(processes)

    def srun(self, gpus: int) -> list[str]:
        """The `srun` of the tasks. Every flag is explicit: the variables of the allocation do not reach this process.

        Each task sees all GPUs of the job on its node, so that they can copy to each other directly; `--gpus-per-task` would
        hide the others' (and Slurm 22.05 with `--gpu-bind=none` names none at all).
        """
        per_node = [f"--gpus-per-node={gpus // self.nodes}"] if gpus else []
        return [
            "srun",
            f"--nodes={self.nodes}",
            f"--ntasks={self.tasks}",
            f"--ntasks-per-node={self.tasks // self.nodes}",
            f"--cpus-per-task={self.threads}",
            *per_node,
            "--export=ALL",
            "--kill-on-bad-exit=1",
            "--wait=0",  # task 0 goes on alone when it writes the model
            "--quit-on-interrupt",
        ]


def in_slurm() -> bool:
    """Whether `srun` can start tasks here: inside an allocation, with the program at hand."""
    return "SLURM_JOB_ID" in os.environ and shutil.which("srun") is not None


def local_place(rank: int, tasks: int, port: int) -> dict[str, str]:
    """What tells a local process its place."""
    place = {"RANK": rank, "WORLD_SIZE": tasks, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": tasks, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in place.items()}


def slurm_place(environment: Mapping[str, str], visible: int) -> dict[str, str]:
    """What tells a task of `srun` its place, from Slurm's variables.

    Args:
        visible: number of GPUs that this task sees: all of the node, or, where the site binds them, its own alone.
    """
    local = int(environment["SLURM_LOCALID"])
    nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_NTASKS"],
        "LOCAL_RANK": str(local % visible if visible else local),
        "LOCAL_WORLD_SIZE": str(int(environment["SLURM_NTASKS"]) // int(environment["SLURM_STEP_NUM_NODES"])),
        "MASTER_ADDR": address(first_host(nodes), environment.get("SLURM_LAUNCH_NODE_IPADDR")),
        "MASTER_PORT": str(PORTS[int(environment["SLURM_JOB_ID"]) % len(PORTS)]),
    }


def first_host(nodes: str) -> str:
    """The first of Slurm's list of nodes: ``gpu[03-05,9],cpu1`` -> ``gpu03``."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def address(host: str, launcher: str | None) -> str:
    """A name by which all tasks reach task 0: its node's, or, where that means nothing to the name service, the address
    of the node on which `srun` was called, which in a batch job is the same node."""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return launcher or host
    return host


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(command: Sequence[str], place: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a process that gets a SIGTERM when the launcher is killed, so that tasks do not train on unattended."""
    libc = ctypes.CDLL(None)  # loaded before the fork
    return subprocess.Popen(command, env={**os.environ, **place}, preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM))


@contextlib.contextmanager
def _forwarding(processes: Sequence[subprocess.Popen[bytes]], stop: signal.Signals, state: Path) -> Iterator[list[int]]:
    """Pass signals on to the tasks; yields those that came. Whatever runs at the end of the block gets the signal `stop`."""
    caught: list[int] = []

    def forward(number: int, frame: Any) -> None:
        caught.append(number)
        signalled(state, signal.Signals(number).name)
        for process in processes:
            process.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for process in processes:
            process.send_signal(stop)
        for process in processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _first_failure(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until all have ended, or one has failed; returns its status (0: none; 75 does not count as failure)."""
    while True:
        statuses = [process.poll() for process in processes]
        bad = [status for status in statuses if status is not None and status not in (0, AGAIN)]
        if bad or None not in statuses:
            return min(bad, default=0)  # one that was killed is the cause, and the errors of others its consequence
        time.sleep(POLL_SECONDS)


def _raise_for(records: Sequence[dict[str, Any]], caught: Sequence[int], failure: int, tasks: int) -> None:
    """Turn what the tasks left into the job's error; nothing if all have done their share."""
    for record in records if failure >= 0 or caught else ():
        if record["error"]:
            where = f"task {record['rank']} of {tasks} on {record['usage']['host']}"
            silent = sorted({*range(tasks)} - {other["rank"] for other in records})
            # `srun` does not say which task failed first.
            doubt = f" Task {silent[0]} left no report: it may have been killed first, as when memory runs out." if silent else ""
            raise MergebenchError(f"{where}: {record['error']}{doubt if LOST_PEER.search(record['error']) else ''}")
    named = [signal.Signals(number).name for number in caught] + [r["interrupted"] for r in records if r["interrupted"]]
    for record in records:
        if record["interrupted"]:
            raise Interrupted(min(named, key=lambda name: not name.startswith("SIG")), record["status"])
    if failure and caught:
        raise Interrupted(named[0], 128 + caught[0])
    if failure:
        how = f"was killed by {signal.Signals(-failure).name}" if failure < 0 else f"ended with status {failure}"
        raise MergebenchError(
            f"One of {tasks} tasks {how} without an error of its own, as when memory runs out; "
            "the job's log may say more. Run again: work goes on from what was last saved."
        )
    if len(records) != tasks:
        raise MergebenchError(f"{len(records)} of {tasks} tasks reported; the others ended without a word. See the job's log.")


def main(arguments: Sequence[str]) -> int:
    """Be one task: ``python -m mergebench.launch FOLDER run STAGE ...``; leaves its record in the folder."""
    folder, *words = arguments
    if "RANK" not in os.environ:
        os.environ |= slurm_place(os.environ, gpus_visible())
    rank = int(os.environ["RANK"])
    record: dict[str, Any] = {"rank": rank, "error": None, "interrupted": None, "status": 0}
    with PeakMemory() as memory, EnergyMeter() as energy:
        try:
            with interruptible():
                record |= _work(words, rank)
        except Interrupted as end:
            record |= {"interrupted": reason(end), "status": end.code}
        except MergebenchError as error:
            record |= {"error": str(error), "status": FAILED}
        except Exception as error:
            traceback.print_exc()
            record |= {"error": reason(error), "status": FAILED}
        write_json(Path(folder) / f"{rank}.json", record | {"usage": process_usage(memory, energy)})
    status = int(record["status"])
    # `srun` ends all tasks when one leaves with a status: task 0 speaks for those that have saved their state.
    return 0 if status == AGAIN and rank else status


def _work(words: Sequence[str], rank: int) -> dict[str, Any]:
    from mergebench import cli

    job = cli.job_of(cli.parser().parse_args(words))
    stage = cli.stage_module(job.stage)
    job.state.mkdir(parents=True, exist_ok=True)
    # Of a launcher that was killed, the tasks may still be saving their state.
    with lease(job.state / "task.lease") if rank == 0 else contextlib.nullcontext():
        payload = stage.run(job)
    return {
        "payload": payload,
        "timings": job.timings,
        "memory": job.memory,
        "staged": {name: str(path.resolve()) for name, path in job.staged.items()},
    }


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    if status not in (0, AGAIN):
        os._exit(status)  # an ordinary end would wait for tasks that wait for this one
    raise SystemExit(status)
