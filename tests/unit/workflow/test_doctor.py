"""Every check of `mergebench doctor`, on facts as real commands print them."""

import dataclasses
import fcntl
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mergebench import cli, config
from mergebench.errors import MergebenchError
from mergebench.workflow.doctor import checks, folder, hub, machine, needs, pins, probe, slurm, software, storage
from mergebench.workflow.doctor.cluster import (
    Request,
    Slurm,
    absent,
    ask_slurm,
    largest_requests,
    minutes,
    munge_test,
    parse_config,
    parse_nodes,
    seconds,
)
from mergebench.workflow.doctor.commands import Answer, ask
from mergebench.workflow.doctor.facts import Facts, by_partition, gather, read_profile
from mergebench.workflow.doctor.finding import Finding, any_failed, as_data, as_text
from mergebench.workflow.doctor.folder import Folder
from mergebench.workflow.doctor.node import Node, visit
from mergebench.workflow.plan import Plan

ROOT = Path(__file__).parents[3]

# Slurm 22.05.8, as it printed these.
CONFIG = """\
Configuration data as of 2026-11-22T06:03:52
AccountingStorageEnforce = none
AccountingStorageType   = accounting_storage/none
AuthInfo                = socket=/run/box/munge/socket,cred_expire=8
AuthType                = auth/munge
ClusterName             = box
JobRequeue              = 1
MinJobAge               = 300 sec
PreemptMode             = REQUEUE
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at box is UP
"""
SINFO = """\
gpu*|up|1-00:00:00|1|64|512000|gpu:a100:4|mixed
gpu*|up|1-00:00:00|2|64|512000|gpu:a100:4|idle
old|up|infinite|4|16|64000|gpu:v100:2,gpu:t4:1(S:0-1)|idle
cpu|up|2:30:00|8|128|256000+|(null)|allocated~
broken|up|infinite|1|64|512000|gpu:a100:8|drained
closed|inact|infinite|1|64|512000|gpu:a100:8|idle
"""
NO_CONFIGURATION = """\
sinfo: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host
sinfo: error: fetch_config: DNS SRV lookup failed
sinfo: error: _establish_config_source: failed to fetch config
sinfo: fatal: Could not establish a configuration source
"""
NO_CONTROLLER = "slurm_load_partitions: Unable to contact slurm controller (connect failure)\n"
TRAIN = Request("train_specialist", gpu=4, mem_mb=256_000, runtime=1200, threads=8, tasks=4, partition="gpu")
MERGE = Request("merge", gpu=0, mem_mb=94_000, runtime=50, threads=8, partition="gpu")
PROFILE = {
    "executor": "slurm",
    "slurm-status-command": "squeue",
    "slurm-init-seconds-before-status-checks": 20,
    "slurm-requeue": True,
    "latency-wait": 60,
}
MACHINE: dict[str, Any] = {
    "host": "login1",
    "python": {"version": "3.11.7", "executable": "/shared/env/bin/python"},
    "packages": {"snakemake": "9.27.1", "snakemake-executor-plugin-slurm": "2.6.1", "torch": "2.13.0+cpu", "numpy": "2.3.5"},
    "source": {"folder": "/shared/mergebench", "digest": "0123456789abcdef"},
    "limits": {"files": 20_000, "locked_memory": None},
    "shared_memory_bytes": 24 << 30,
    "temporary": {"folder": "/tmp", "free_bytes": 70 << 30},
    "sandbox": {"strong": True, "network": "namespace", "files": "landlock 7"},
    "offline": "refused",
    "gpu": {"driver_cuda": None, "devices": []},
    "torch": {"version": "2.13.0+cpu", "cuda": None, "available": False, "devices": 0, "bf16": None},
}
A100 = {"name": "NVIDIA A100-SXM4-80GB", "driver": "580.95.05", "memory_mib": "81920", "capability": "8.0"}
GPU_TORCH = {"version": "2.13.0+cu130", "cuda": "13.0", "available": True, "devices": 1, "bf16": True}
ON_NODE = {
    **MACHINE,
    "host": "n1",
    "gpu": {"driver_cuda": "13.0", "devices": [A100]},
    "torch": GPU_TORCH,
    "lock": "refused",
    "clock_ahead": 0.01,
    "written": 1000.0,
}
PINS = pins.Pins(
    "cpu.lock", {"snakemake": "9.27.1", "snakemake-executor-plugin-slurm": "2.6.1"}, {"numpy": "2.3.5", "torch": "2.13.0"}, "3.11"
)


def cluster(**changes: Any) -> Slurm:
    trials = {
        "train_specialist": Answer(
            0, error="sbatch: Job 21 to start at 2026-11-22T06:24:08 using 1 processors on nodes n3 in partition gpu"
        )
    }
    facts = {
        "version": "22.05.8",
        "config": parse_config(CONFIG),
        "groups": parse_nodes(SINFO),
        "queue": Answer(0, "16\n17\n"),
        "trials": trials,
    }
    return Slurm(**{**facts, **changes})


def site(**changes: Any) -> Facts:
    """A cluster on which all is well."""
    good = Facts(
        here=MACHINE,
        folder=Folder("results", lock="refused", rename="atomic", fsync_seconds=0.002, free_bytes=10**13, inodes=10**8),
        pins=PINS,
        profile=PROFILE,
        requests=[TRAIN, MERGE],
        slurm=cluster(),
        nodes=[Node("gpu", ON_NODE, seen=1001.0)],
        bases=2,
        fetched=2,
        needed_bytes=10**12,
        needed_files=1000,
        bfloat16=True,
    )
    return dataclasses.replace(good, **changes)


def node(**changes: Any) -> list[Node]:
    return [Node("gpu", {**ON_NODE, **changes}, seen=1001.0)]


def only(findings: Any) -> Finding:
    """The single finding that is not ok."""
    (found,) = [each for each in findings if each.level != "ok"]
    return found


def test_a_good_cluster_passes_every_check():
    findings = checks.judge(site())
    assert {f.level for f in findings} == {"ok", "skipped"}
    assert [f.check for f in findings if f.level == "skipped"] == ["NCCL"]
    assert not any_failed(findings)


def test_a_laptop_without_slurm_passes_and_says_what_was_skipped():
    laptop = site(slurm=None, nodes=[], profile=PROFILE, requests=[dataclasses.replace(MERGE, partition="gpu")])
    findings = checks.judge(laptop)
    assert not any_failed(findings)
    skipped = {f.check: f.found for f in findings if f.level == "skipped"}
    assert set(skipped) == {
        *("Slurm", "Slurm's settings", "partitions", "sbatch --test-only", "environment on a node", "shared file system"),
        *("GPU", "NCCL"),
    }
    assert {skipped[name] for name in ("Slurm", "partitions", "shared file system")} == {"no Slurm here"}


def test_slurm_is_left_alone_by_a_profile_that_does_not_submit_to_it(laptop, monkeypatch):
    monkeypatch.setattr("mergebench.workflow.doctor.facts.ask_slurm", lambda requests: pytest.fail("Slurm was asked"))
    monkeypatch.setattr(probe, "facts", lambda: MACHINE)
    facts = gather(Plan(config.load(Path("config.yaml"), preset="tiny")), read_profile(Path("profiles/local")), job=True, timeout=1)
    assert {f.found for f in slurm.partitions(facts)} == {"the profile does not submit to Slurm"}
    assert {f.level for f in slurm.reachable(facts)} == {"skipped"}


def test_every_failure_says_what_to_do():
    broken = site(
        here={**MACHINE, "packages": {}, "offline": "used the network"},
        folder=Folder("results", lock="granted", rename="OSError: no", free_bytes=1, inodes=1),
        slurm=cluster(config=parse_config(CONFIG.replace("300 sec", "10 sec")), trials={"merge": Answer(1, error="sbatch: error: no")}),
        nodes=node(
            lock="granted",
            packages={},
            gpu={"driver_cuda": None, "devices": []},
            sandbox={"strong": False, "network": "open", "files": "open"},
        ),
        gated=["gemma-2-2b"],
        requests=[dataclasses.replace(TRAIN, partition="nope")],
    )
    failures = [f for f in checks.judge(broken) if f.level == "FAILED"]
    assert len(failures) > 8
    assert [f for f in failures if not f.todo] == []


# -- commands and parsing --------------------------------------------------------------------------------------


def test_sinfo_is_read_as_slurm_prints_it():
    groups = parse_nodes(SINFO)
    assert [(g.partition, g.default, g.nodes) for g in groups[:3]] == [("gpu", True, 1), ("gpu", True, 2), ("old", False, 4)]
    assert groups[2].gpus == {"v100": 2, "t4": 1}
    assert groups[3].memory_mb == 256_000
    assert (groups[3].minutes, groups[3].gpus, groups[3].usable) == (150, {}, True)
    assert [g.usable for g in groups[4:]] == [False, False]


@pytest.mark.parametrize(
    ("text", "expected"), [("infinite", None), ("1-00:00:00", 1440), ("2:30:00", 150), ("30:00", 30), ("0:30", 1), ("n/a", None)]
)
def test_time_limits(text, expected):
    assert minutes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("300 sec", 300), ("3600", 3600), ("1 h", 3600), ("5 min", 300), ("", None), ("never", None)]
)
def test_times_of_the_configuration(text, expected):
    assert seconds(text) == expected


def test_a_missing_program_and_a_silent_one_are_told_apart():
    assert ask(["no-such-program-here"]).error == "no-such-program-here is not installed"
    assert "gave no answer within 0.2 s" in ask(["sleep", "5"], seconds=0.2).error
    assert ask(["sh", "-c", "echo one; echo two >&2; exit 3"]) == Answer(3, "one\n", "two\n")


@pytest.mark.parametrize(
    ("error", "expected"),
    [(NO_CONFIGURATION, True), ("scontrol is not installed", True), (NO_CONTROLLER, False)],
    ids=["none", "missing", "down"],
)
def test_no_slurm_is_told_from_one_that_does_not_answer(error, expected):
    assert absent(Answer(1, error=error)) is expected


def test_a_controller_that_is_down_fails():
    found = only(slurm.reachable(site(slurm=None, slurm_answer=Answer(1, error=NO_CONTROLLER))))
    assert found.level == "FAILED"
    assert "Unable to contact slurm controller" in found.found
    assert "scontrol ping" in found.todo


def test_asking_runs_the_commands_of_slurm_and_a_trial_per_rule(tmp_path, monkeypatch):
    """Programs of Slurm that print what real ones did, and note how they were called."""
    (tmp_path / "config").write_text(CONFIG)
    (tmp_path / "sinfo.txt").write_text(SINFO)
    programs = {
        "scontrol": f"cat {tmp_path}/config",
        "sinfo": f"cat {tmp_path}/sinfo.txt",
        "squeue": "echo 17",
        "sbatch": f'echo "$@" >> {tmp_path}/asked; echo "allocation failure: Requested node configuration is not available" >&2; exit 1',
        "munge": f'echo "$@" > {tmp_path}/munged',
        "unmunge": "echo STATUS: Success",
    }
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    found, _ = ask_slurm([TRAIN, dataclasses.replace(MERGE, account="physics")])
    assert found is not None
    assert (found.version, len(found.groups), found.accounting) == ("22.05.8", 6, False)
    train, merge = (tmp_path / "asked").read_text().splitlines()
    assert train == "--test-only --mem=256000 --time=1200 --nodes=1 --ntasks=4 --cpus-per-task=8 --partition=gpu --gpus=4 --wrap=true"
    assert "--account=physics" in merge
    assert "--gpus" not in merge
    assert "socket=/run/box/munge/socket" in (tmp_path / "munged").read_text()
    assert only(slurm.submission(site(slurm=found))).found.startswith("train_specialist, merge: allocation failure")


def test_munge_without_a_socket_of_its_own_is_asked_at_the_usual_one():
    assert munge_test("(null)") == ["sh", "-c", "munge --no-input | unmunge"]


# -- Slurm -----------------------------------------------------------------------------------------------------


def test_a_queue_that_refuses_fails():
    assert only(slurm.reachable(site(slurm=cluster(queue=Answer(1, error="squeue: error: Invalid user"))))).check == "squeue"


def test_credentials_that_are_not_accepted_fail():
    for answer in (Answer(1, error="munge: Error: Failed to access socket"), Answer(0, "STATUS: Rewound credential (15)")):
        assert only(slurm.reachable(site(slurm=cluster(munge=answer)))).check == "munge"
    assert {f.level for f in slurm.reachable(site(slurm=cluster(munge=Answer(0, "STATUS: Success (0)"))))} == {"ok"}


def test_jobs_that_slurm_forgets_too_soon_fail():
    short = cluster(config=parse_config(CONFIG.replace("300 sec", "30 sec")))
    found = only(slurm.settings(site(slurm=short)))
    assert (found.check, found.level) == ("MinJobAge", "FAILED")
    assert "MinJobAge=120" in found.todo
    slow = {**PROFILE, "slurm-init-seconds-before-status-checks": 200}
    assert "MinJobAge=600" in only(slurm.settings(site(profile=slow))).todo


def test_polling_an_accounting_database_that_is_not_there_fails():
    polling = {**PROFILE, "slurm-status-command": "sacct"}
    assert only(slurm.settings(site(profile=polling))).check == "accounting"
    database = cluster(config=parse_config(CONFIG.replace("accounting_storage/none", "accounting_storage/slurmdbd")))
    assert {f.level for f in slurm.settings(site(profile=polling, slurm=database))} == {"ok"}


def test_an_account_without_a_database_to_check_it_in_fails():
    asking = [dataclasses.replace(TRAIN, account="physics")]
    assert only(slurm.settings(site(requests=asking))).check == "account"


def test_jobs_that_are_not_requeued_are_worth_a_word():
    never = cluster(config=parse_config(CONFIG.replace("JobRequeue              = 1", "JobRequeue              = 0")))
    assert {f.level for f in slurm.settings(site(slurm=never))} == {"ok"}
    assert only(slurm.settings(site(slurm=never, profile={**PROFILE, "slurm-requeue": False}))).level == "warning"


@pytest.mark.parametrize(
    ("request_", "found", "todo"),
    [
        (dataclasses.replace(TRAIN, partition="nope"), "does not exist; there are: gpu, old, cpu", "slurm_partition"),
        (dataclasses.replace(TRAIN, partition="broken"), "no node is usable (drained)", "another partition"),
        (dataclasses.replace(TRAIN, partition="closed"), "no node is usable (partition down)", "another partition"),
        (dataclasses.replace(TRAIN, runtime=2000), "train_specialist asks for 2000 min, jobs may run 1440 min", "max_runtime: 1440"),
        (dataclasses.replace(TRAIN, gpu=8, tasks=8), "8 GPUs on a node, nodes have at most 4", "gpus_per_node: 4"),
        (dataclasses.replace(TRAIN, partition="cpu", runtime=100), "4 GPUs on a node, nodes have at most 0", "set-resources"),
        (dataclasses.replace(TRAIN, gpu_model="h100"), "gpu_model h100, the nodes have a100", "gpu_model"),
        (dataclasses.replace(TRAIN, gpu=2, gpu_model="t4", partition="old"), "2 GPUs on a node, nodes have at most 1", "gpus_per_node: 1"),
        (dataclasses.replace(MERGE, mem_mb=600_000), "merge asks for 600000 MB, nodes have at most 512000 MB", "mem_mb for merge"),
        (dataclasses.replace(TRAIN, threads=32), "128 CPUs on a node, nodes have at most 64", "threads for train_specialist"),
        (dataclasses.replace(TRAIN, gpu=16, tasks=16, nodes=4), "asks for 4 nodes, 3 can run it", "larger partition"),
    ],
    ids=["unknown", "drained", "closed", "time", "gpus", "no-gpus", "model", "model-count", "memory", "cpus", "nodes"],
)
def test_what_a_partition_cannot_grant_fails(request_, found, todo):
    finding = only(slurm.partitions(site(requests=[request_])))
    assert finding.level == "FAILED"
    assert found in finding.found
    assert todo in finding.todo


def test_requests_fit_partitions_without_a_time_limit_and_over_several_nodes():
    old = dataclasses.replace(TRAIN, gpu=2, tasks=2, runtime=99_999, mem_mb=60_000, partition="old", gpu_model="v100")
    wide = dataclasses.replace(TRAIN, gpu=12, tasks=12, nodes=3)
    assert {f.level for f in slurm.partitions(site(requests=[old, wide]))} == {"ok"}


def test_a_profile_without_a_partition_takes_the_default_one():
    nameless = [dataclasses.replace(TRAIN, partition="")]
    assert [f.check for f in slurm.partitions(site(requests=nameless))] == ["partition gpu (default)"]
    no_default = cluster(groups=parse_nodes(SINFO.replace("*", "")))
    assert "no default" in only(slurm.partitions(site(requests=nameless, slurm=no_default))).found


@pytest.mark.parametrize(
    ("error", "todo"),
    [
        ("sbatch: error: invalid partition specified: nope\nallocation failure: Invalid partition name specified", "set-resources"),
        ("allocation failure: Invalid account or account/partition combination specified", "slurm_account"),
    ],
)
def test_a_refused_trial_submission_fails_with_what_to_change(error, todo):
    found = only(slurm.submission(site(slurm=cluster(trials={"merge": Answer(1, error=error), "tune": Answer(0)}))))
    assert found.found.startswith("merge: allocation failure")
    assert todo in found.todo


# -- requests of the plan --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper() -> Plan:
    return Plan(config.load(ROOT / "config.yaml"))


def test_requests_are_the_largest_of_each_rule(paper):
    found = {r.rule: r for r in largest_requests(paper, read_profile(ROOT / "profiles/slurm"))}
    prepared, trained = {"decontaminate", "tokenise"}, {"train_specialist", "train_grpo", "train_multitask"}
    assert set(found) == {*prepared, *trained, "vectors", "interference", "statistics", "tune", "merge", "evaluate", "judge", "settle"}
    assert (found["judge"].gpu, found["settle"].gpu) == (1, 0)
    assert found["train_specialist"].gpu >= 1
    assert found["merge"].gpu == 0
    small = Plan(config.load(ROOT / "config.yaml", preset="micro"))
    assert max(r.gpu for r in largest_requests(small, {})) == 0


def test_what_the_profile_sets_for_a_rule_counts(paper):
    profile = {
        "default-resources": {"slurm_partition": "gpu", "slurm_account": "physics", "mem_mb": 5, "gpu_model": "a100"},
        "set-resources": {"merge": {"slurm_partition": "cpu", "mem_mb": 1234, "runtime": "60 * attempt"}, "evaluate_general_3": {"gpu": 2}},
    }
    found = {r.rule: r for r in largest_requests(paper, profile)}
    assert (found["merge"].partition, found["merge"].mem_mb) == ("cpu", 1234)
    assert found["merge"].runtime == {r.rule: r for r in largest_requests(paper, {})}["merge"].runtime
    assert (found["tune"].partition, found["tune"].account, found["tune"].gpu_model) == ("gpu", "physics", "a100")
    assert found["tune"].mem_mb > 5
    assert {"evaluate", "evaluate_general_3"} <= set(found)
    assert found["evaluate_general_3"].gpu == 2


def test_each_partition_is_visited_once_and_with_a_gpu_where_jobs_have_one():
    elsewhere = dataclasses.replace(MERGE, partition="cpu")
    assert sorted((r.partition, r.gpu) for r in by_partition([TRAIN, MERGE, elsewhere])) == [("cpu", 0), ("gpu", 4)]


# -- software --------------------------------------------------------------------------------------------------


def test_versions_are_read_from_locks_with_and_without_hashes():
    text = "# made\nlm-eval[ifeval,math]==0.4.13 \\\n    --hash=sha256:00==11 \\\nPyYAML==6.0.3\nhuggingface_hub==1.33.0 ; x\n"
    text += "torch==2.13.0+cpu\n"
    assert pins.versions(text) == {"lm-eval": "0.4.13", "pyyaml": "6.0.3", "huggingface-hub": "1.33.0", "torch": "2.13.0+cpu"}


def test_pins_are_those_of_the_checkout():
    found = pins.pins(ROOT, built_for_cuda=False)
    assert found.lock == "cpu.lock"
    assert found.direct["snakemake-executor-plugin-slurm"] == "2.6.1"
    assert found.locked["snakemake"] == found.direct["snakemake"]
    assert found.python == "3.11"
    assert pins.pins(ROOT / "tests", built_for_cuda=False) == pins.Pins("", {}, {})


def test_a_changed_direct_dependency_fails_and_an_indirect_one_warns():
    wrong = {**MACHINE, "packages": {**MACHINE["packages"], "snakemake": "8.0.0"}}
    assert only(software.packages(site(here=wrong))).found == "snakemake 8.0.0 (expected 9.27.1)"
    drifted = {**MACHINE, "packages": {**MACHINE["packages"], "numpy": "1.0"}}
    assert only(software.packages(site(here=drifted))).level == "warning"


def test_a_build_label_is_no_difference():
    assert {f.level for f in software.packages(site())} == {"ok"}


def test_a_missing_snakemake_fails():
    without = {name: version for name, version in MACHINE["packages"].items() if name != "snakemake"}
    findings = list(software.packages(site(here={**MACHINE, "packages": without}, pins=pins.Pins("cpu.lock", {}, {"numpy": "2.3.5"}))))
    assert only(findings).check == "snakemake"


def test_an_old_python_fails():
    assert only(software.python(site(here={**MACHINE, "python": {"version": "3.9.2", "executable": "/usr/bin/python3"}}))).level == "FAILED"


def test_the_plugin_must_be_there_at_its_version_where_there_is_slurm():
    other = {**MACHINE, "packages": {**MACHINE["packages"], "snakemake-executor-plugin-slurm": "2.8.0"}}
    assert only(software.plugin(site(here=other))).found == "2.8.0; expected 2.6.1"
    none = {**MACHINE, "packages": {}}
    assert "pip install snakemake-executor-plugin-slurm==2.6.1" in only(software.plugin(site(here=none))).todo
    assert only(software.plugin(site(here=none, slurm=None))).level == "skipped"
    assert only(software.plugin(site(here=none, profile={"cores": "all"}))).level == "skipped"


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ({"python": {"version": "3.9.2", "executable": "/usr/bin/python3"}}, "Python 3.9.2 on n1, 3.11.7 here"),
        ({"packages": {**MACHINE["packages"], "numpy": "1.0"}}, "numpy 1.0 (expected 2.3.5)"),
        ({"source": {"folder": "/old/mergebench", "digest": "f"}}, "another mergebench: /old/mergebench on n1"),
        ({"source": {"folder": "", "digest": ""}}, "another mergebench: none on n1"),
    ],
    ids=["python", "packages", "source", "no-source"],
)
def test_another_environment_on_a_node_fails(there, found):
    finding = only(software.same_on_nodes(site(nodes=node(**there))))
    assert finding.level == "FAILED"
    assert found in finding.found


def test_a_node_that_does_not_answer_fails_once():
    silent = site(nodes=[Node("gpu", problem="job 7 left no answer: exec: python: not found")])
    failures = [f for f in checks.judge(silent) if f.level == "FAILED"]
    assert [f.check for f in failures] == ["environment on gpu"]
    assert "python: not found" in failures[0].found


# -- storage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "check", "level"),
    [
        ({"problem": "Permission denied"}, "results folder", "FAILED"),
        ({"lock": "granted"}, "locks", "FAILED"),
        ({"lock": "OSError: No locks available"}, "locks", "FAILED"),
        ({"rename": "a reader saw 'new'"}, "renames", "FAILED"),
        ({"fsync_seconds": 4.0}, "flushing", "warning"),
    ],
    ids=["unwritable", "unlocked", "no-locks", "rename", "slow"],
)
def test_a_folder_that_cannot_do_what_is_needed(changes, check, level):
    found = only(storage.folder(site(folder=dataclasses.replace(site().folder, **changes))))
    assert (found.check, found.level) == (check, level)


@pytest.mark.parametrize(("changes", "check"), [({"free_bytes": 10**11}, "free disk"), ({"inodes": 10}, "free inodes")])
def test_too_little_room_fails(changes, check):
    assert only(storage.space(site(folder=dataclasses.replace(site().folder, **changes)))).check == check


def test_a_file_system_that_does_not_count_inodes_is_fine():
    assert {f.level for f in storage.space(site(folder=dataclasses.replace(site().folder, inodes=None)))} == {"ok"}


@pytest.mark.parametrize(
    ("there", "seen", "check", "level"),
    [
        ({"lock": "granted"}, 1001.0, "shared files on gpu", "FAILED"),
        ({"clock_ahead": 40.0, "written": 1040.0}, 1001.0, "clock on gpu", "warning"),
        ({}, 1100.0, "latency on gpu", "FAILED"),
    ],
    ids=["lock", "clock", "latency"],
)
def test_what_a_node_sees_otherwise(there, seen, check, level):
    found = only(storage.shared(site(nodes=[Node("gpu", {**ON_NODE, **there}, seen=seen)])))
    assert (found.check, found.level) == (check, level)


def test_a_skewed_clock_is_not_taken_for_latency():
    findings = {
        f.check: f for f in storage.shared(site(nodes=[Node("gpu", {**ON_NODE, "clock_ahead": -90.0, "written": 910.0}, seen=1001.0)]))
    }
    assert findings["clock on gpu"].level == "warning"
    assert findings["latency on gpu"].level == "ok"


def test_the_folder_of_the_results_is_tried_and_left_clean(tmp_path):
    with folder.workbench(tmp_path / "results" / "tiny") as bench:
        found = folder.examine(bench)
    assert (found.lock, found.rename) == ("refused", "atomic")
    assert found.free_bytes > 0
    assert abs(found.clock_ahead) < 5
    assert list((tmp_path / "results").iterdir()) == []


def test_a_lock_that_nobody_holds_is_granted(tmp_path):
    path = tmp_path / "file"
    path.touch()
    assert probe.try_lock(path) == "granted"
    with path.open("rb+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert probe.try_lock(path) == "refused"
    assert "FileNotFoundError" in probe.try_lock(tmp_path / "absent")


# -- machines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ({"limits": {"files": 1024, "locked_memory": None}}, "1024 open files"),
        ({"limits": {"files": None, "locked_memory": 8 << 20}}, "8192 KiB of locked memory"),
        ({"shared_memory_bytes": 64 << 20}, "0.1 GiB in /dev/shm"),
        ({"shared_memory_bytes": None}, "0.0 GiB in /dev/shm"),
        ({"temporary": {"folder": "/tmp", "free_bytes": 1 << 30}}, "1.0 GiB free in /tmp"),
    ],
    ids=["files", "memlock", "shm", "no-shm", "tmp"],
)
def test_tight_limits_are_worth_a_word(there, found):
    finding = only(machine.limits(site(nodes=node(**there))))
    assert (finding.check, finding.level) == ("limits on gpu", "warning")
    assert found in finding.found


def test_locked_memory_matters_on_nodes_with_several_gpus_only():
    low = {"files": 20_000, "locked_memory": 1 << 16}
    assert {f.level for f in machine.limits(site(here={**MACHINE, "limits": low}))} == {"ok"}
    assert {f.level for f in machine.limits(site(nodes=node(limits=low), requests=[MERGE]))} == {"ok"}


def test_a_weak_sandbox_fails_where_programs_would_run():
    weak = {"strong": False, "network": "open", "files": "open"}
    assert only(machine.sandbox(site(nodes=node(sandbox=weak)))).level == "FAILED"
    assert only(machine.sandbox(site(here={**MACHINE, "sandbox": weak}))).level == "warning"
    assert only(machine.sandbox(site(here={**MACHINE, "sandbox": weak}, nodes=[], slurm=None))).level == "FAILED"
    assert only(machine.sandbox(site(nodes=node(sandbox=weak), allow_weak_sandbox=True))).level == "warning"
    assert {f.level for f in machine.sandbox(site(nodes=node(sandbox=weak), runs_code=False))} == {"skipped"}


def test_a_client_that_uses_the_network_offline_fails():
    assert only(machine.offline(site(nodes=node(offline="used the network")))).level == "FAILED"


@pytest.mark.parametrize(
    ("there", "check", "found"),
    [
        ({"gpu": {"driver_cuda": None, "devices": []}}, "GPU on gpu", "a job with one GPU on n1 saw none"),
        ({"gpu": {"driver_cuda": "12.4", "devices": [A100]}}, "driver on gpu", "supports CUDA 12.4, torch 2.13.0+cu130 was built for 13.0"),
        ({"torch": MACHINE["torch"]}, "driver on gpu", "was built without CUDA"),
        ({"torch": {"error": "ImportError: libcudart.so.13"}}, "driver on gpu", "libcudart.so.13"),
        ({"torch": {**GPU_TORCH, "available": False}}, "driver on gpu", "cannot use the GPU"),
        (
            {"gpu": {"driver_cuda": "13.0", "devices": [{**A100, "name": "Tesla V100", "capability": "7.0"}]}},
            "bfloat16 on gpu",
            "Tesla V100 (compute capability 7.0) has none",
        ),
    ],
    ids=["none", "old-driver", "cpu-build", "import", "unusable", "no-bfloat16"],
)
def test_what_is_wrong_with_a_gpu(there, check, found):
    finding = only(machine.gpu(site(nodes=node(**there))))
    assert (finding.check, finding.level) == (check, "FAILED")
    assert found in finding.found


def test_a_driver_of_the_same_major_version_is_new_enough():
    older = node(gpu={"driver_cuda": "13.0", "devices": [A100]}, torch={**GPU_TORCH, "cuda": "13.2"})
    assert {f.level for f in machine.gpu(site(nodes=older))} == {"ok"}


def test_bfloat16_may_be_missing_where_it_is_not_used():
    old = node(gpu={"driver_cuda": "13.0", "devices": [{**A100, "capability": "7.0"}]})
    assert {f.level for f in machine.gpu(site(nodes=old, bfloat16=False))} == {"ok"}


def test_gpus_are_not_looked_for_where_no_job_asks_for_one():
    assert only(machine.gpu(site(requests=[MERGE]))).level == "skipped"


def test_nvidia_smi_is_read_as_it_prints(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    table = "NVIDIA H200, 570.124.06, 143771, 9.0"
    head = "| NVIDIA-SMI 570.124.06   Driver Version: 570.124.06   CUDA Version: 12.8     |"
    program.write_text(f'#!/bin/sh\ncase "$1" in --query*) echo "{table}";; *) echo "{head}";; esac\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    device = {"name": "NVIDIA H200", "driver": "570.124.06", "memory_mib": "143771", "capability": "9.0"}
    assert probe.gpu() == {"driver_cuda": "12.8", "devices": [device]}


# -- the hub ---------------------------------------------------------------------------------------------------


def test_a_missing_token_fails_and_names_what_needs_it():
    found = only(hub.token(site(gated=["gemma-2-2b", "wildguardtest"])))
    assert found.level == "FAILED"
    assert "gemma-2-2b, wildguardtest" in found.found
    assert {f.level for f in hub.token(site(gated=["gemma-2-2b"], token=True))} == {"ok"}


def test_what_is_gated_follows_the_preset_and_what_is_fetched(paper, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = needs.gated(paper)
    assert {"gemma-2-2b", "llama-3.1-8b-instruct", "wildguardtest"} <= set(wanted)
    assert "gsm8k" not in wanted
    manifest = Path(paper.model("gemma-2-2b", "base"), "manifest.json")
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    assert set(wanted) - set(needs.gated(paper)) == {"gemma-2-2b"}
    assert needs.gated(Plan(config.load(ROOT / "config.yaml", preset="tiny"))) == []


def test_a_token_is_found_in_the_environment_or_its_file_and_never_printed(tmp_path):
    assert not needs.has_token({"HF_HOME": str(tmp_path)})
    assert needs.has_token({"HF_HOME": str(tmp_path), "HF_TOKEN": "hf_secret"})
    (tmp_path / "token").write_text("hf_secret")
    assert needs.has_token({"HF_HOME": str(tmp_path)})
    assert not needs.has_token({"HF_HOME": str(tmp_path), "HF_TOKEN_PATH": str(tmp_path / "elsewhere")})
    assert "hf_secret" not in as_text(checks.judge(site(gated=["gemma-2-2b"], token=True)))


def test_bases_that_are_not_fetched_are_worth_a_word():
    assert only(hub.fetched(site(fetched=0))).level == "warning"


def test_the_paper_needs_terabytes_and_the_tiny_twins_megabytes(paper, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert needs.more_bytes(paper, {}) > 10**12
    tiny = Plan(config.load(ROOT / "config.yaml", preset="tiny"))
    assert 10**6 < needs.more_bytes(tiny, {}) < 10**10


# -- a node ----------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """An `sbatch` that runs the job at once on this machine; `squeue` then says that it has completed."""
    text = f"""#!{sys.executable}
import subprocess, sys
options = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[1:])
done = subprocess.run(["sh", "-c", options["wrap"]], capture_output=True, text=True)
open(options["output"], "w").write(done.stdout + done.stderr)
open({str(tmp_path / "options")!r}, "w").write(" ".join(sys.argv[1:]))
print("4711;box")
"""
    (tmp_path / "bin").mkdir()
    for name, content in (
        ("sbatch", text),
        ("squeue", "#!/bin/sh\necho COMPLETED\n"),
        ("scancel", f"#!/bin/sh\necho $1 > {tmp_path}/cancelled\n"),
    ):
        (tmp_path / "bin" / name).write_text(content)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def test_the_probe_runs_as_a_job_and_sees_the_lock_that_is_held(fake_slurm):
    with folder.workbench(fake_slurm / "results" / "tiny") as bench:
        found = visit(TRAIN, bench, timeout=120)
    assert found.problem == ""
    assert found.facts["lock"] == "refused"
    assert found.facts["source"] == probe.source()
    assert found.facts["packages"]["snakemake"]
    assert found.facts["offline"] == "refused"
    assert found.seen >= found.facts["written"]
    asked = (fake_slurm / "options").read_text()
    assert "--partition=gpu" in asked
    assert "--gpus=1" in asked


def test_a_job_without_an_answer_says_its_last_line(fake_slurm, monkeypatch):
    monkeypatch.setattr("mergebench.workflow.doctor.node.GRACE_SECONDS", 0.5)
    monkeypatch.setattr("mergebench.workflow.doctor.node.sys.executable", "/not/on/this/node/python")
    with folder.workbench(fake_slurm / "results" / "tiny") as bench:
        found = visit(MERGE, bench, timeout=30)
    assert found.problem.startswith("job 4711 left no answer: ")
    assert "/not/on/this/node/python" in found.problem


def test_a_job_that_waits_too_long_is_cancelled(fake_slurm):
    (fake_slurm / "bin" / "sbatch").write_text("#!/bin/sh\necho 4711\n")
    (fake_slurm / "bin" / "squeue").write_text("#!/bin/sh\necho PENDING\n")
    with folder.workbench(fake_slurm / "results" / "tiny") as bench:
        found = visit(MERGE, bench, timeout=0.5)
    assert found.problem == "job 4711 had not ended after 0.5 s, and was cancelled"
    assert (fake_slurm / "cancelled").read_text().strip() == "4711"


def test_an_interrupted_question_cancels_its_job(fake_slurm, monkeypatch):
    ends, sleep = iter([KeyboardInterrupt]), time.sleep

    def interrupt_once(seconds: float) -> None:
        if end := next(ends, None):
            raise end
        sleep(seconds)  # waiting for scancel sleeps too

    (fake_slurm / "bin" / "sbatch").write_text("#!/bin/sh\necho 4711\n")
    monkeypatch.setattr("mergebench.workflow.doctor.node.time.sleep", interrupt_once)
    with folder.workbench(fake_slurm / "results" / "tiny") as bench, pytest.raises(KeyboardInterrupt):
        visit(MERGE, bench, timeout=30)
    assert (fake_slurm / "cancelled").read_text().strip() == "4711"


def test_a_refused_job_says_why(fake_slurm):
    (fake_slurm / "bin" / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: Batch job submission failed: Invalid qos' >&2\nexit 1\n")
    with folder.workbench(fake_slurm / "results" / "tiny") as bench:
        assert "Invalid qos" in visit(MERGE, bench, timeout=5).problem


# -- the command -----------------------------------------------------------------------------------------------


@pytest.fixture
def laptop(tmp_path, monkeypatch):
    """A folder with the configuration, on a machine that has no Slurm."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "mergebench.workflow.doctor.facts.ask_slurm", lambda requests: (None, Answer(None, error="scontrol is not installed"))
    )
    for name in ("config.yaml", "profiles", "envs", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_the_command_passes_on_a_laptop(laptop, capsys):
    assert cli.main(["doctor", "--preset", "tiny"]) == 0
    printed = capsys.readouterr().out
    assert "skipped  Slurm" in printed
    assert printed.rstrip().endswith("skipped")
    assert sorted(p.name for p in laptop.iterdir() if not p.is_symlink()) == ["results"]


def test_the_command_fails_with_one_check_and_says_so_in_json(laptop, capsys, monkeypatch):
    monkeypatch.setattr(probe, "facts", lambda: MACHINE)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(laptop / "none"))
    assert cli.main(["doctor", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["passed"] is False
    assert {"check": "hub token", "level": "FAILED"}.items() <= next(f for f in printed["findings"] if f["check"] == "hub token").items()


def test_a_missing_profile_is_named(laptop):
    with pytest.raises(MergebenchError, match="profiles/nope"):
        read_profile(Path("profiles/nope"))


def test_gathering_without_a_job_asks_no_node(laptop, monkeypatch):
    monkeypatch.setattr("mergebench.workflow.doctor.facts.ask_slurm", lambda requests: (cluster(), Answer(0)))
    monkeypatch.setattr(probe, "facts", lambda: MACHINE)
    monkeypatch.setattr("mergebench.workflow.doctor.facts.visit", lambda *_, **__: pytest.fail("a job was submitted"))
    facts = gather(Plan(config.load(Path("config.yaml"), preset="tiny")), PROFILE, job=False, timeout=1)
    assert facts.without_nodes == "not asked for (--no-job)"


def test_text_and_json_agree():
    findings = checks.judge(site(gated=["gemma-2-2b"]))
    assert as_text(findings).splitlines()[-1] == f"{sum(f.level == 'ok' for f in findings)} ok, 0 warning, 1 FAILED, 1 skipped"
    assert as_data(findings)["passed"] is False


def test_the_probe_needs_nothing_but_the_standard_library(tmp_path):
    """On a node, the package may be what is missing."""
    text = Path(probe.__file__).read_text()
    program = f"import sys; sys.modules['mergebench'] = None; exec(compile({text!r}, 'probe.py', 'exec'), {{'__name__': 'probe'}})"
    subprocess.run([sys.executable, "-I", "-c", program], check=True, cwd=tmp_path)
