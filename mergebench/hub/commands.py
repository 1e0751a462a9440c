"""`mergebench hub`: look at the lock of hub revisions, or move it on."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mergebench.errors import MergebenchError, nearest
from mergebench.hub import lock
from mergebench.hub.download import newest
from mergebench.hub.refusals import explained


def main(arguments: Sequence[str]) -> None:
    """Carry out one command."""
    options = parser().parse_args(list(arguments))
    options.verb(options)


def parser() -> argparse.ArgumentParser:
    """The parser of the commands."""
    top = argparse.ArgumentParser(prog="mergebench hub", description="The commits of hub repositories that are read.")
    top.add_argument("--file", type=Path, default=lock.FILE, help="the lock file (default: %(default)s)")
    verbs = top.add_subparsers(required=True, metavar="VERB")
    show = verbs.add_parser("lock", help="print every repository with its commit")
    show.set_defaults(verb=print_lock)
    update = verbs.add_parser("update", help="look repositories up anew; the next run fetches those that have moved")
    update.add_argument("names", nargs="*", metavar="NAME", help="repositories, such as openai/gsm8k")
    update.add_argument("--all", action="store_true", help="every repository of the lock")
    update.set_defaults(verb=update_lock)
    return top


def print_lock(options: argparse.Namespace) -> None:
    """Print the lock."""
    found = lock.read(options.file)
    lines = [f"{kind:8} {entry:60} {commit}" for kind, entries in found.items() for entry, commit in sorted(entries.items())]
    print("\n".join(lines) or f"{options.file}: no repository has been fetched yet")


def update_lock(options: argparse.Namespace) -> None:
    """Move repositories on to what the hub has now, and print what moved."""
    known = {entry.partition("@")[0] for entries in lock.read(options.file).values() for entry in entries}
    if options.all == bool(options.names):
        raise MergebenchError("mergebench hub update: name repositories, or give --all.")
    for name in options.names:
        if name not in known:
            raise MergebenchError(f"{options.file} has no {name!r}; {nearest(name, sorted(known))}.")

    def ask(kind: lock.Kind, name: str, revision: str | None) -> str:
        with explained(kind, name):
            return newest(kind, name, revision)

    for kind, entry, before, now in lock.move(options.file, lambda _, name: options.all or name in options.names, ask):
        print(f"{kind:8} {entry:60} {before[:12]} -> {now[:12]}" if now != before else f"{kind:8} {entry:60} {now[:12]}, unchanged")
