"""How every stage reads its inputs and publishes its outputs.

A stage is a module with ``run(job) -> dict``. `execute` gives it a `Job`, lets it write to temporary
siblings of its outputs, moves them into place when they are complete, and writes ``manifest.json`` last: a
file says that it is finished by being there.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Protocol

from mergebench import attempts
from mergebench.attempts import AGAIN as AGAIN  # for the stages, which get all they need of a job here
from mergebench.attempts import Interrupted as Interrupted
from mergebench.costs import PeakMemory, cost_record, gpus_held
from mergebench.energy import EnergyMeter
from mergebench.errors import MergebenchError

MANIFEST = "manifest.json"
DROPPED = "dropped.json"  # in a weights folder: the shards that were deleted on purpose
CHUNK = 1 << 22


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hex digest of a JSON value in canonical form (sorted keys)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that it is either complete or absent."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(value, stream, sort_keys=True, indent=1, ensure_ascii=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # there only if the disk is full


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or broken one is reported with its path."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MergebenchError(f"{path} does not exist; the step that makes it has not finished.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MergebenchError(f"{path} is not valid JSON ({error}); delete it and run again.") from None


@dataclass
class Job:
    """One execution of a stage: what decides the result (`spec`), where to read, and where to write."""

    stage: str
    spec: dict[str, Any]
    inputs: dict[str, Any]
    outputs: dict[str, Path]
    state: Path
    threads: int = 1
    requested: dict[str, int] = field(default_factory=dict)  # what the rule asked for: mem_mb, runtime (minutes), gpu, ...
    hub_lock: Path | None = None  # the file that records which commits of the hub are read (`hub.lock`), for fetches
    timings: dict[str, float] = field(default_factory=dict)
    memory: dict[str, dict[str, int]] = field(default_factory=dict)  # computed bytes, by work and part, for the cost record
    ranks: list[dict[str, Any]] = field(default_factory=list)  # `costs.process_usage` of each of several tasks
    _started: float = field(default_factory=time.monotonic)
    _staged: dict[str, Path] = field(default_factory=dict)
    _last_report: float = 0.0

    def path(self, name: str) -> Path:
        """The single input called `name`."""
        paths = self.paths(name)
        if len(paths) != 1:
            raise MergebenchError(f"stage {self.stage} expects one input {name!r}, got {len(paths)}.")
        return paths[0]

    def paths(self, name: str) -> list[Path]:
        """All inputs called `name`, in the order in which they were given (none: an empty list)."""
        found = self.inputs.get(name, [])
        return list(found) if isinstance(found, (list, tuple)) else [found]

    def staging(self, name: str) -> Path:
        """Where to write output `name`: a temporary sibling of the final path; a directory exists already."""
        if name not in self._staged:
            final = self.outputs[name]
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary = final.with_name(f".{final.name}.tmp-{os.getpid()}")
            remove(temporary)
            if is_directory_output(final):
                temporary.mkdir()
            self._staged[name] = temporary
        return self._staged[name]

    @property
    def staged(self) -> dict[str, Path]:
        """Where outputs have been written so far, by name."""
        return dict(self._staged)

    def adopt(self, staged: dict[str, Path]) -> None:
        """Take over outputs that another process of this job has staged."""
        self._staged |= staged

    def progress(self, done: float, total: float, what: str, *, before: float = 0) -> None:
        """Print how far the stage is and how long the rest may take, at most every two seconds.

        `before` of what is done was done by an earlier attempt.
        """
        now = time.monotonic()
        if done < total and now - self._last_report < 2.0:
            return
        self._last_report = now
        attempts.alive(self.state)
        elapsed = now - self._started
        rest = f", about {elapsed / (done - before) * (total - done):.0f} s left" if before < done < total else ""
        print(f"[{self.stage}] {what}: {done:g}/{total:g}, {elapsed:.0f} s{rest}", file=sys.stderr, flush=True)

    def next_part(self) -> None:
        """Estimate what is left from now on alone: what follows has another speed."""
        self._started = time.monotonic()

    @contextlib.contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add the wall seconds of a block to the cost record under `name`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.monotonic() - start


class Stage(Protocol):
    """Work that `execute` can do: a module with a `run`, or an object that stands for one."""

    def run(self, job: Job, /) -> dict[str, Any]: ...


def is_directory_output(path: Path) -> bool:
    """Outputs without a suffix (``weights``) are directories, all others are files."""
    return path.suffix == ""


def remove(path: Path) -> None:
    """Remove a file or a directory tree, whichever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def inventory(root: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below a directory, or of a single file, by relative name."""
    if root.is_file():
        return {root.name: {"bytes": root.stat().st_size, "sha256": sha256_file(root)}}
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {f"{root.name}/{p.relative_to(root).as_posix()}": {"bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in files}


def damaged(manifest: Path, *, content: bool = False) -> str | None:
    """Say in one sentence how the files beside a manifest differ from it, or return None.

    Sizes are compared by default, which costs a `stat` per file; `content=True` compares SHA-256 as well.
    """
    try:
        recorded = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{manifest} cannot be read as a manifest."
    dropped = dropped_files(manifest)
    for name, facts in recorded.items():
        path = manifest.parent / name
        if name in dropped and not path.exists():
            continue
        if not path.is_file():
            return f"{path} is missing, but {manifest} lists it."
        if path.stat().st_size != facts["bytes"]:
            return f"{path} has {path.stat().st_size} bytes, {manifest.name} says {facts['bytes']}: it is truncated or changed."
        if content and sha256_file(path) != facts["sha256"]:
            return f"{path} does not have the SHA-256 that {manifest.name} records: its content has changed."
    for folder in {(manifest.parent / name).parent for name in recorded if name.endswith(".safetensors")}:
        for path in sorted(folder.glob("*.safetensors")):
            if path.relative_to(manifest.parent).as_posix() not in recorded:
                return f"{path} is not listed in {manifest}, and would be loaded with the rest: it does not belong there."
    return None


def dropped_files(manifest: Path) -> set[str]:
    """The files of an artifact that were deleted on purpose, named as in its manifest."""
    record = manifest.parent / "weights" / DROPPED
    return set(read_json(record)["files"]) if record.is_file() else set()


def set_damaged_aside(results: Path, *, dry_run: bool = False) -> list[str]:
    """Rename the manifest of every damaged artifact below `results`, so that the workflow makes it again.

    Returns one sentence per artifact. The damaged files themselves are replaced by the job that rebuilds them.
    """
    sentences = []
    for manifest in sorted(results.glob(f"**/{MANIFEST}")):
        problem = damaged(manifest)
        if problem and not dry_run:
            manifest.rename(manifest.with_name("manifest.damaged.json"))
        if problem:
            sentences.append(f"{problem} {'A run would make' if dry_run else 'This run makes'} it again.")
    return sentences


def execute(module: ModuleType | Stage, job: Job) -> None:
    """Run a stage under its lease and publish its outputs, the manifest last.

    Raises:
        MergebenchError: an input is missing or damaged, the disk is full, or the stage cannot do what its spec says.
        Interrupted: SIGTERM ended it; the same call makes it anew, or goes on where the stage keeps its state.
    """
    for path in (p for name in job.inputs for p in job.paths(name)):
        check_input(path)
    job.state.mkdir(parents=True, exist_ok=True)
    with lease(job.state / "lease") as waited:
        if waited and published(job):
            print(f"[{job.stage}] another process has just finished this job", file=sys.stderr)
            return
        job.state.mkdir(parents=True, exist_ok=True)  # the process that held the lease may have removed it
        remove_abandoned(job)
        with attempts.recorded(job.state, gpus_held(job.requested)) as attempt, PeakMemory() as memory, EnergyMeter() as energy:
            started = time.monotonic()
            try:
                payload = module.run(job)
                if "manifest" in job.outputs:
                    write_json(job.staging("manifest"), describe(job, payload))
                if "cost" in job.outputs:
                    seconds = time.monotonic() - started
                    asked = (attempt, job.requested)
                    record = cost_record(subject(job), seconds, memory, energy, *asked, job.ranks, job.timings, job.memory)
                    write_json(job.staging("cost"), record)
                publish(job)
            except Exception as error:
                if full := full_disk(error, job):
                    raise MergebenchError(full) from error
                raise
            finally:
                for path in job._staged.values():
                    remove(path)
    remove(job.state)


def check_input(path: Path) -> None:
    """Refuse an input that is absent, or whose files differ from its manifest."""
    if not path.exists():
        raise MergebenchError(f"input {path} does not exist; make it first, for example with `snakemake -- {path}`.")
    manifest = path.parent / MANIFEST
    described = path.is_dir() or path.name == MANIFEST
    if described and manifest.is_file() and (problem := damaged(manifest)):
        raise MergebenchError(f"{problem} Run snakemake again: it is then made anew.")


def describe(job: Job, payload: dict[str, Any]) -> dict[str, Any]:
    """The manifest: what was made, from what, with which settings. Nothing volatile, so that an identical
    rerun gives an identical file and leaves what depends on it up to date."""
    files: dict[str, Any] = {}
    for name, path in job._staged.items():
        if name not in ("manifest", "cost"):
            final = os.path.relpath(job.outputs[name], job.outputs["manifest"].parent)
            files |= {final + entry.removeprefix(path.name): facts for entry, facts in inventory(path).items()}
    return {
        "stage": job.stage,
        "spec": job.spec,
        "inputs": {name: digests for name in sorted(job.inputs) if (digests := [*filter(None, map(identity, job.paths(name)))])},
        "files": files,
        **payload,
    }


def identity(path: Path) -> str | None:
    """The hash that stands for an input: a folder's is that of its manifest, which lists the folder's files."""
    described = path.parent / MANIFEST if path.is_dir() else path
    return sha256_file(described) if described.is_file() else None


def published(job: Job) -> bool:
    """Whether the outputs are there, complete, and made from this very spec."""
    manifest = job.outputs.get("manifest")
    if manifest is None or not manifest.is_file():
        return False
    return damaged(manifest) is None and read_json(manifest).get("spec") == job.spec


def publish(job: Job) -> None:
    """Flush every staged output to disk and move it into place, the manifest last."""
    missing = [name for name in job.outputs if name not in job._staged or not job._staged[name].exists()]
    if missing:
        raise MergebenchError(f"stage {job.stage} ended without writing {', '.join(missing)}; please report this.")
    for path in job._staged.values():
        for item in [path, *path.rglob("*")] if path.is_dir() else [path]:
            if item.is_file():
                with item.open("rb") as stream:
                    os.fsync(stream.fileno())
    for name in sorted(job._staged, key=lambda name: name == "manifest"):
        final = job.outputs[name]
        if final.is_dir():
            remove(final)
        os.replace(job._staged[name], final)


def remove_abandoned(job: Job) -> None:
    """Remove what a killed run of this job left beside its outputs; the lease proves that nobody writes it."""
    for final in job.outputs.values():
        for leftover in final.parent.glob(f".{final.name}.tmp-*"):
            remove(leftover)


@contextlib.contextmanager
def lease(path: Path) -> Iterator[bool]:
    """Hold an exclusive lock on `path`; yields whether another process held it first.

    A killed workflow leaves its jobs running; the job that a restarted workflow submits waits here
    instead of writing the same files.
    """
    with path.open("a+") as stream:
        waited = False
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            holder = _holder(stream)
            print(f"waiting for {holder}, which is running the same job ({path})", file=sys.stderr, flush=True)
            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {os.uname().nodename}")
        stream.flush()
        yield waited


def _holder(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read().strip() or "another process"


def subject(job: Job) -> dict[str, Any]:
    """Which job a cost record is about."""
    return {"stage": job.stage, **{k: v for k, v in job.spec.items() if k in ("base", "model", "method", "domain", "dataset")}}


def full_disk(error: Exception, job: Job) -> str | None:
    """A sentence, if a write failed for want of space or quota; libraries report that in ways of their own."""
    codes = (errno.ENOSPC, errno.EDQUOT)
    if getattr(error, "errno", None) not in codes and not any(os.strerror(code) in str(error) for code in codes):
        return None
    folders = {path.parent for path in (*job.outputs.values(), job.state / "lease") if path.parent.exists()}
    least = min(folders, key=lambda folder: shutil.disk_usage(folder).free, default=job.state)
    return (
        f"{least} has no space left ({error}); free some, or raise the quota, and run again. "
        "Nothing unfinished is left under the name of an output."
    )
