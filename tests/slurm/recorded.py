"""The commands of Slurm, as far as the plugin uses them, as one script under several names. Jobs run at once, on this machine.

The folder that `SLURM_SHIM` names holds all there is: `calls.jsonl`, one line per submission; a file per job with its
state, and one with its process; `silent`, the number of questions to squeue that stay without an answer; and
`fates.json`, which maps a rule to states that its first submissions get without being run.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

SHIM = Path(os.environ.get("SLURM_SHIM", "."))
PURGED = "PURGED"  # of a job that squeue no longer lists


def option(arguments: list[str], name: str) -> str:
    """The value of ``--name value`` or ``--name=value``."""
    for i, word in enumerate(arguments):
        if word == name:
            return arguments[i + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    raise SystemExit(f"no {name} in {arguments}")


def sbatch(arguments: list[str]) -> None:
    calls = SHIM / "calls.jsonl"
    number = len(calls.read_text().splitlines()) + 1 if calls.exists() else 1
    rule = option(arguments, "--comment").removeprefix("rule_").partition("_wildcards_")[0]
    call = {"rule": rule, "mem": option(arguments, "--mem"), "time": option(arguments, "-t"), "wrap": option(arguments, "--wrap")}
    fates = json.loads((SHIM / "fates.json").read_text())
    fate = fates.get(rule, []).pop(0) if fates.get(rule) else None
    (SHIM / "fates.json").write_text(json.dumps(fates))
    with calls.open("a") as stream:
        print(json.dumps({"id": number, **call}), file=stream)
    state = SHIM / f"{number}.state"
    state.write_text("RUNNING" if fate in (None, PURGED) else fate)
    log = option(arguments, "--output").replace("%j", str(number))
    if fate in (None, PURGED):
        end = fate or "COMPLETED"
        command = f"({call['wrap']}) && echo {end} > {state} || echo FAILED > {state}"
        environment = {**os.environ, "SLURM_JOB_ID": str(number)}
        with open(log, "w") as stream:
            streams = {"stdin": subprocess.DEVNULL, "stdout": stream, "stderr": subprocess.STDOUT}
            started = subprocess.Popen(command, shell=True, cwd=option(arguments, "-D"), env=environment, start_new_session=True, **streams)
        (SHIM / f"{number}.pid").write_text(str(started.pid))
    else:
        Path(log).write_text("recorded end\n")
    print(number)


def squeue(_: list[str]) -> None:
    silent = int((SHIM / "silent").read_text())
    if silent:
        (SHIM / "silent").write_text(str(silent - 1))
        raise SystemExit("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    for path in SHIM.glob("*.state"):
        state = path.read_text().strip()
        if state and state != PURGED:
            print(f"{path.stem}|{state}|0:10|10:00|n1|None")


def scancel(arguments: list[str]) -> None:
    (SHIM / "cancelled").write_text(" ".join(arguments))
    for path in SHIM.glob("*.pid"):
        os.killpg(int(path.read_text()), signal.SIGKILL)


def main() -> None:
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if name == "srun":
        first = next(i for i, word in enumerate(arguments) if not word.startswith("-"))
        os.execvp(arguments[first], arguments[first:])
    elif name == "scontrol":
        print("MinJobAge = 300 sec\nMaxArraySize = 1001")
    elif name == "sbatch":
        sbatch(arguments)
    elif name == "squeue":
        squeue(arguments)
    elif name == "scancel":
        scancel(arguments)
    else:
        raise SystemExit("Slurm accounting storage is disabled")


def install(folder: Path) -> None:
    """Write the commands into `folder`."""
    folder.mkdir(parents=True)
    for name in ("sbatch", "squeue", "sacct", "scontrol", "sinfo", "scancel", "srun", "sacctmgr", "sshare"):
        script = folder / name
        script.write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
        script.chmod(0o755)


if __name__ == "__main__":
    main()
