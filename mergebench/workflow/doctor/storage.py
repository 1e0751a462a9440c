"""Checks of the file system that holds the results."""

from __future__ import annotations

from collections.abc import Iterator

from mergebench.workflow.doctor.facts import Facts
from mergebench.workflow.doctor.finding import Finding, failed, ok, skipped, warning

SLOW_FSYNC_SECONDS = 1.0
TOLERATED_SKEW_SECONDS = 5.0
GB = 1e9
LOCKS = "mount it with flock (Lustre: `-o flock`; NFS: version 4), or put the folder on another file system."


def folder(facts: Facts) -> Iterator[Finding]:
    """Can results be locked, renamed and flushed where they will lie?"""
    found = facts.folder
    if found.problem:
        yield failed(
            "results folder", f"{found.path}: {found.problem}", "choose a folder that you may write with `results:` in config.yaml."
        )
        return
    if found.lock == "refused":
        yield ok("locks", "a second process is refused")
    else:
        yield failed("locks", f"a second process was not refused a held lock ({found.lock}): two jobs could write the same files", LOCKS)
    if found.rename == "atomic":
        yield ok("renames", "replace a file at once")
    else:
        yield failed("renames", f"do not replace a file at once: {found.rename}", "put the folder on another file system.")
    if found.fsync_seconds > SLOW_FSYNC_SECONDS:
        yield warning(
            "flushing", f"{found.fsync_seconds:.1f} s for a small file", "expect slow ends of jobs, or choose another file system."
        )
    else:
        yield ok("flushing", f"{found.fsync_seconds * 1000:.0f} ms for a small file")


def space(facts: Facts) -> Iterator[Finding]:
    """Is there room for the campaign?"""
    found = facts.folder
    if found.problem:
        yield skipped("free disk", "the folder cannot be written")
        return
    free, needed = found.free_bytes / GB, facts.needed_bytes / GB
    if free < needed:
        todo = "choose another folder with `results:` in config.yaml, take fewer bases, or set storage.keep_merged to false."
        yield failed("free disk", f"{free:,.0f} GB in {found.path}, the plan needs {needed:,.0f} GB more at its peak", todo)
    else:
        yield ok(
            "free disk", f"{free:,.0f} GB in {found.path}, the plan needs {needed:,.1f} GB more at its peak (quotas are not seen here)"
        )
    if found.inodes is None:
        yield ok("free inodes", "not limited")
    elif found.inodes < facts.needed_files:
        yield failed("free inodes", f"{found.inodes:,}; the plan makes about {facts.needed_files:,} files", "choose another file system.")
    else:
        yield ok("free inodes", f"{found.inodes:,}; the plan makes about {facts.needed_files:,} files")


def shared(facts: Facts) -> Iterator[Finding]:
    """Do locks, times and new files mean the same on a compute node as here?"""
    if not facts.nodes:
        yield skipped("shared file system", facts.without_nodes)
    for node in facts.nodes:
        name = f"shared files on {node.partition}"
        if node.problem:
            yield skipped(name, "the job on the node did not answer")
            continue
        there = node.facts
        if there["lock"] == "refused":
            yield ok(name, f"a lock held here is seen on {there['host']}")
        else:
            found = f"a lock held here is not seen on {there['host']} ({there['lock']}): two jobs could write the same files"
            yield failed(name, found, LOCKS)
        skew = there["clock_ahead"] - facts.folder.clock_ahead
        if abs(skew) > TOLERATED_SKEW_SECONDS:
            found = f"{there['host']} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine"
            yield warning(
                f"clock on {node.partition}", found, "files made there look newer or older than they are; ask for time synchronisation."
            )
        else:
            yield ok(f"clock on {node.partition}", f"within {abs(skew) + 0.05:.1f} s of this machine's")
        delay = max(0.0, node.seen - (there["written"] - skew))
        wait = float(facts.profile.get("latency-wait", 5))
        if delay > wait:
            found = f"a new file of {there['host']} was seen here after {delay:.0f} s, latency-wait is {wait:.0f} s"
            yield failed(f"latency on {node.partition}", found, f"set latency-wait: {2 * delay:.0f} in the profile.")
        else:
            yield ok(f"latency on {node.partition}", f"a new file is seen here after {delay:.1f} s (latency-wait is {wait:.0f} s)")
