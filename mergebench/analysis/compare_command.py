"""`mergebench compare`."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from mergebench.analysis.comparable import KINDS
from mergebench.analysis.compare import AggregateOf, Options, compare_runs, failures
from mergebench.analysis.compare_text import to_json, to_markdown, to_table, to_terminal
from mergebench.analysis.opened import open_run
from mergebench.analysis.terminal import coloured, show_text
from mergebench.errors import MergebenchError, nearest

WORSE_STATUS = 3
CLEAR = "\r\033[K"


def command(options: argparse.Namespace, aggregate_of: AggregateOf) -> int:
    """Compare, print, and return the exit status; for `aggregate_of` see `compare_runs`."""
    for kind in options.allow:
        if kind not in KINDS:
            raise MergebenchError(f"--allow {kind}: {nearest(kind, list(KINDS))}.")
    percent = options.fail_if_worse
    if percent is not None and not (math.isfinite(percent) and percent >= 0):
        raise MergebenchError(f"--fail-if-worse {percent:g}: give a number of percentage points, 0 or more.")
    if options.csv is not None and not options.csv.absolute().parent.is_dir():
        raise MergebenchError(f"--csv {options.csv}: there is no folder {options.csv.parent}; make it first.")
    chosen = Options(frozenset(options.allow), options.leave_out, options.normalise_by_first)
    progress = _progress if sys.stderr.isatty() else None
    try:
        found = compare_runs(open_run(options.a), open_run(options.b), chosen, aggregate_of, progress)
    finally:
        if progress:
            print(CLEAR, end="", file=sys.stderr, flush=True)
    if options.csv is not None:
        _write(options.csv, to_table(found))
    if options.json:
        show_text(to_json(found))
    elif options.markdown:
        show_text(to_markdown(found, everything=options.all))
    else:
        show_text(to_terminal(found, everything=options.all, colour=coloured(sys.stdout)))
    worse = [] if percent is None else failures(found, percent)
    for each in worse:
        print(f"worse: {each}", file=sys.stderr)
    return WORSE_STATUS if worse else 0


def _progress(done: int, total: int, name: str) -> None:
    """One line that is written over."""
    print(f"{CLEAR}{100 * done // total:3d} % {name}", end="", file=sys.stderr, flush=True)


def _write(path: Path, text: str) -> None:
    """Write beside the file, then move."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise MergebenchError(f"{path} cannot be written ({error.strerror}).") from error
