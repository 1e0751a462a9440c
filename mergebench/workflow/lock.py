"""The configuration is resolved once, by the main process, and locked for every job of the run.

Snakemake parses the Snakefile and ``config.yaml`` again in each job that it submits. An edit during a run
would otherwise make a file from one configuration and record another.
"""

import fcntl
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from mergebench import config
from mergebench.artifacts import set_damaged_aside, sha256_json, write_json
from mergebench.errors import MergebenchError
from mergebench.hub import lock as hub_lock
from mergebench.hub.outdated import set_outdated_aside
from mergebench.workflow.plan import Plan
from mergebench.workflow.source import FOLDER, only_asks

VARIABLE = "MERGEBENCH_CONFIGURATION"
APART = "MERGEBENCH_APART"  # the benchmarks that this run asks in jobs of their own
SEARCHES_APART = "MERGEBENCH_SEARCHES_APART"  # set where this run tunes every method in a job of its own
LOCKS = FOLDER / "workflows"
_HELD: list[IO[str]] = []


def resolve(raw: Mapping[str, Any], *, main: bool) -> config.Configuration:
    """The configuration of this run.

    The main process validates `raw`, writes it to a lock file and names that file in the environment, which
    Slurm jobs inherit. Every other process reads the lock. An invalid configuration ends the run in one line.
    """
    try:
        if main:
            resolved = config.parse(json.loads(json.dumps(raw)))
            content = resolved.model_dump(mode="json")
            path = FOLDER / f"configuration-{sha256_json(content)[:16]}.json"
            if not path.is_file():
                write_json(path, content)
            os.environ[VARIABLE] = str(path.resolve())
            return resolved
        locked = os.environ.get(VARIABLE)
        if locked is None:
            raise MergebenchError(f"this job was started without {VARIABLE}; start jobs through the main snakemake process.")
        return config.parse(json.loads(Path(locked).read_text(encoding="utf-8")))
    except MergebenchError as error:
        sys.exit(f"mergebench: {error}")


def apart(configuration: config.Configuration, arguments: Sequence[str], *, main: bool) -> list[tuple[str, str]]:
    """Models and benchmarks that get jobs of their own in this run: those whose missing scores `arguments` name as targets.

    Who asks for scores and nothing else waits for no other benchmark; another target may need the whole group, whose jobs then
    make these scores too. The main process decides, and names them in the environment.
    """
    if main:
        root = Path(os.path.relpath(f"{configuration.results}/{configuration.preset}"))
        targets = [path for path in map(_relative, arguments) if root in path.parents]
        alone = "all" not in arguments and all(_is_score(target, root) for target in targets)
        asked = sorted({(t.parent.name, t.name.split(".")[0]) for t in targets if not t.exists()}) if alone else []
        os.environ[APART] = json.dumps(asked)
    return [(model, benchmark) for model, benchmark in json.loads(os.environ.get(APART, "[]"))]


def searches_apart(configuration: config.Configuration, arguments: Sequence[str], *, main: bool) -> bool:
    """Whether every method is tuned in a job of its own in this run: where `arguments` name missing files of searches and nothing else.

    As with scores, the main process decides, and says so in the environment.
    """
    if main:
        root = Path(os.path.relpath(f"{configuration.results}/{configuration.preset}"))
        targets = [path for path in map(_relative, arguments) if root in path.parents]
        alone = "all" not in arguments and all(len(t.parents) > 2 and t.parents[2] == root / "tuning" for t in targets)
        os.environ[SEARCHES_APART] = "yes" if alone and any(not target.exists() for target in targets) else ""
    return bool(os.environ.get(SEARCHES_APART))


def _relative(word: str) -> Path:
    return Path(os.path.relpath(word)) if word else Path()


def _is_score(path: Path, results: Path) -> bool:
    return len(path.parents) > 3 and path.parents[3] == results and path.parents[2].name in ("scores", "answers")


def check_results(results: str, arguments: Sequence[str]) -> None:
    """Set aside, before the jobs are planned, what is damaged and what the hub lock has moved on from.

    Where `arguments` only ask, they are only named.
    """
    root = Path(results)
    if not root.is_dir():
        return
    asks = only_asks(arguments)
    for sentence in [*set_damaged_aside(root, dry_run=asks), *set_outdated_aside(root, hub_lock.FILE, dry_run=asks)]:
        print(f"mergebench: {sentence}", file=sys.stderr)


def prepare(plan: Plan, arguments: Sequence[str]) -> None:
    """What the main process does before planning: checks, the folder's lock, damaged artifacts set aside."""
    find_commands()
    try:
        plan.check_data()
    except MergebenchError as error:
        sys.exit(f"mergebench: {error}")
    take_folder(plan.name, arguments)
    try:
        check_results(plan.results, arguments)
    except MergebenchError as error:
        sys.exit(f"mergebench: {error}")


def find_commands() -> None:
    """Let jobs find `mergebench` by name in this interpreter's environment, whether it is activated or not."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def take_folder(preset: str, arguments: Sequence[str]) -> None:
    """Refuse a second workflow for the same preset in this folder, and clear what a killed one left.

    The lock is held until this process ends, however it ends; Snakemake's own lock outlives a killed process, and
    is removed here once no workflow in this folder is alive.
    """
    if only_asks(arguments):
        return
    LOCKS.mkdir(parents=True, exist_ok=True)
    own = (LOCKS / f"{preset}.lock").open("a+")
    if not _lock(own):
        own.seek(0)
        sys.exit(
            f"mergebench: {own.read().strip() or 'another process'} is running preset {preset} in this folder; wait for it or stop it."
        )
    own.truncate(0)
    own.write(f"process {os.getpid()} on {os.uname().nodename}")
    own.flush()
    _HELD.append(own)
    if all(_is_free(path) for path in LOCKS.glob("*.lock") if path.name != f"{preset}.lock"):
        for stale in Path(".snakemake/locks").glob("*.lock"):
            stale.unlink(missing_ok=True)


def _lock(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(path: Path) -> bool:
    with path.open("a+") as stream:
        return _lock(stream)
