"""What Slurm says about itself, parsed; and the requests of the plan that it must be able to grant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mergebench.workflow.doctor.commands import Answer, ask
from mergebench.workflow.jobs import GROUPED, planned_jobs
from mergebench.workflow.plan import Plan
from mergebench.workflow.resources import Resources, Site

NOT_CONFIGURED = ("could not establish a configuration source", "is not installed")


@dataclass(frozen=True)
class Request:
    """The largest first request of a rule: GPUs and memory (MB) per job, run time in minutes."""

    rule: str
    gpu: int
    mem_mb: int
    runtime: int
    threads: int
    nodes: int = 1
    tasks: int = 1
    partition: str = ""
    account: str = ""
    gpu_model: str = ""

    @property
    def per_node(self) -> int:
        """GPUs on each of its nodes."""
        return -(-self.gpu // self.nodes)

    def options(self) -> list[str]:
        """The options of `sbatch` that ask for it, as the executor plugin writes them."""
        words = [f"--mem={self.mem_mb}", f"--time={self.runtime}", f"--nodes={self.nodes}"]
        words += [f"--ntasks={self.tasks}", f"--cpus-per-task={self.threads}"]
        words += [f"--partition={self.partition}"] if self.partition else []
        words += [f"--account={self.account}"] if self.account else []
        if self.gpu:
            words.append(f"--gpus={self.gpu_model}:{self.gpu}" if self.gpu_model else f"--gpus={self.gpu}")
        return words


@dataclass(frozen=True)
class NodeGroup:
    """Equal nodes of a partition, from one line of ``sinfo``. `minutes` is the time limit, None for none."""

    partition: str
    default: bool
    up: bool
    minutes: int | None
    nodes: int
    cpus: int
    memory_mb: int
    gpus: dict[str, int] = field(default_factory=dict)
    state: str = "idle"

    @property
    def usable(self) -> bool:
        """Whether jobs can ever start there as it is now."""
        return self.up and not re.match(r"(down|drain|fail|inval|unk|maint)", self.state)


SINFO = ("sinfo", "--noheader", "--exact", "--format=%P|%a|%l|%D|%c|%m|%G|%T")


@dataclass(frozen=True)
class Slurm:
    """A cluster that answers."""

    version: str
    config: dict[str, str]
    groups: list[NodeGroup]
    queue: Answer
    trials: dict[str, Answer] = field(default_factory=dict)
    munge: Answer | None = None

    @property
    def accounting(self) -> bool:
        """Whether there is an accounting database."""
        return self.config.get("AccountingStorageType", "").rpartition("/")[2] not in ("", "none", "(null)")

    def partition(self, name: str) -> list[NodeGroup]:
        """The nodes of a partition; of the default one if no name is given."""
        return [g for g in self.groups if (g.partition == name if name else g.default)]


def ask_slurm(requests: Sequence[Request]) -> tuple[Slurm | None, Answer]:
    """Ask ``scontrol``, ``sinfo``, ``squeue`` and, with a trial submission per rule, ``sbatch``.

    Returns:
        The cluster, or None with what the first command that failed answered.
    """
    config = ask(["scontrol", "show", "config"])
    if not config.good:
        return None, config
    nodes = ask(SINFO)
    if not nodes.good:
        return None, nodes
    facts = parse_config(config.out)
    trials = {r.rule: ask(["sbatch", "--test-only", *r.options(), "--wrap=true"]) for r in requests}
    munge = ask(munge_test(facts.get("AuthInfo", ""))) if facts.get("AuthType") == "auth/munge" else None
    queue = ask(["squeue", "--me", "--noheader", "--format=%i"])
    return Slurm(facts.get("SLURM_VERSION", "unknown"), facts, parse_nodes(nodes.out), queue, trials, munge), nodes


def munge_test(auth_info: str) -> list[str]:
    """The command that makes and reads a credential, through the socket that Slurm uses."""
    found = re.search(r"socket=([^,\s]+)", auth_info)
    option = f" --socket={shlex.quote(found[1])}" if found else ""
    return ["sh", "-c", f"munge --no-input{option} | unmunge{option}"]


def absent(answer: Answer) -> bool:
    """Whether a command failed because there is no Slurm on this machine, rather than one that does not answer."""
    return any(words in answer.error.lower() for words in NOT_CONFIGURED)


def parse_config(text: str) -> dict[str, str]:
    """``scontrol show config`` as a map."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def seconds(value: str) -> int | None:
    """A time of the configuration, such as ``300 sec``; None if it is not one."""
    found = re.match(r"(\d+)\s*(s|sec|secs|seconds|min|minutes|h|hours|)$", value.strip().lower())
    if found is None:
        return None
    return int(found[1]) * {"m": 60, "h": 3600}.get(found[2][:1], 1)


def minutes(value: str) -> int | None:
    """A time limit of ``sinfo``: [days-]hours:minutes:seconds or minutes:seconds; None for infinite."""
    if not re.fullmatch(r"(\d+-)?[\d:]+", value):
        return None
    days, _, clock = value.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    while len(parts) < 3:
        parts.insert(0, 0)
    return int(days or 0) * 24 * 60 + parts[-3] * 60 + parts[-2] + (parts[-1] > 0)


def parse_nodes(text: str) -> list[NodeGroup]:
    """The answer of `SINFO`."""
    groups = []
    for line in text.splitlines():
        name, up, limit, count, cpus, memory, gres, state = (cell.strip() for cell in line.split("|"))
        gpus: dict[str, int] = {}
        for kind, number in re.findall(r"gpu:(?:([^:,()]+):)?(\d+)", gres):
            gpus[kind] = gpus.get(kind, 0) + int(number)
        groups.append(
            NodeGroup(
                partition=name.rstrip("*"),
                default=name.endswith("*"),
                up=up == "up",
                minutes=minutes(limit),
                nodes=int(count),
                cpus=int(cpus.rstrip("+")),
                memory_mb=int(memory.rstrip("+")),
                gpus=gpus,
                state=state.rstrip("*~#!%$@^-"),
            )
        )
    return groups


def largest_requests(plan: Plan, profile: dict[str, Any]) -> list[Request]:
    """For each rule that is submitted the largest numbers that its first attempts ask for.

    The rules of a stage of evaluation count as one, but for those that the profile gives resources of their own.
    """
    defaults, overrides = profile.get("default-resources") or {}, profile.get("set-resources") or {}
    resources = Resources(plan, Site.of(defaults))
    found: dict[str, list[dict[str, int]]] = {}
    for job in planned_jobs(plan):
        if not job.local:
            rule = job.stage if job.stage in GROUPED and job.rule not in overrides else job.rule
            found.setdefault(rule, []).append(asdict(resources.of(job.stage, None, **job.wildcards)))
    return [_largest(rule, asked, defaults, overrides.get(rule) or {}) for rule, asked in found.items()]


def _largest(rule: str, asked: list[dict[str, int]], defaults: dict[str, Any], own: dict[str, Any]) -> Request:
    """The largest of each number; what the profile sets for the rule itself, as a plain value, replaces it."""
    most = {name: max(each[name] for each in asked) for name in asked[0]}
    most |= {name: value for name, value in own.items() if name in most and isinstance(value, int)}
    texts = {**defaults, **own}
    return Request(
        rule=rule,
        gpu=most["gpu"],
        nodes=most["nodes"],
        mem_mb=most["mem_mb"],
        runtime=most["runtime"],
        threads=most["threads"],
        tasks=most["tasks"],
        partition=str(texts.get("slurm_partition") or ""),
        account=str(texts.get("slurm_account") or ""),
        gpu_model=str(texts.get("gpu_model") or ""),
    )
