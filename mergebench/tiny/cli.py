"""`mergebench tiny pretrain`: make the tiny twins again."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from mergebench.errors import MergebenchError
from mergebench.tiny import pretrain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments on a parser of the caller's."""
    parser.add_argument("base", choices=[*pretrain.TWINS, "all"], help="which twin to pretrain")
    parser.add_argument("output", type=Path, help="a folder: it receives one folder per twin and manifest.json")
    parser.add_argument("--steps", type=int, help="optimiser steps (default: the twin's own number)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the corpus")
    parser.add_argument("--threads", type=int, default=1, help="threads; the hash may depend on their number")


def run(arguments: argparse.Namespace) -> int:
    """Pretrain the chosen twins one after the other; prints each one's hash."""
    import torch

    torch.set_num_threads(arguments.threads)
    for base in pretrain.TWINS if arguments.base == "all" else [arguments.base]:
        steps = pretrain.TWINS[base].steps if arguments.steps is None else arguments.steps
        digest = pretrain.pretrain(base, arguments.output / base, steps=steps, seed=arguments.seed, progress=_Progress())
        pretrain.record(base, arguments.output, digest, steps, arguments.seed)
        print(f"{base}: {digest}")
    return 0


class _Progress:
    """Prints how far a run is and how long it will still take, at most every five seconds and at the end."""

    def __init__(self) -> None:
        self._started = self._printed = time.monotonic()

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if now - self._printed < 5 and done < total:
            return
        self._printed = now
        left = (now - self._started) / done * (total - done)
        print(f"{what}: {done}/{total} steps, {left:.0f} s left", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Entry point: `pretrain BASE|all OUTPUT [--steps N] [--seed S] [--threads T]`."""
    parser = argparse.ArgumentParser(prog="mergebench tiny", description="Tools of the tiny twins.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    add_arguments(verbs.add_parser("pretrain", help="pretrain one of the tiny twins, or all of them"))
    try:
        return run(parser.parse_args(arguments))
    except MergebenchError as error:
        print(f"mergebench: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
