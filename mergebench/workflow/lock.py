"""The configuration is resolved once, by the main process, and locked for every job of the run.

Snakemake parses the Snakefile and ``config.yaml`` again in each job that it submits. An edit during a run
would otherwise make a file from one configuration and record another.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergebench import config
from mergebench.artifacts import set_damaged_aside, sha256_json, write_json
from mergebench.errors import MergebenchError

VARIABLE = "MERGEBENCH_CONFIGURATION"
FOLDER = Path(".snakemake/mergebench")


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


def check_results(results: str, *, dry_run: bool) -> None:
    """Set damaged artifacts aside before the jobs are planned; a dry run only names them."""
    root = Path(results)
    if not root.is_dir():
        return
    for sentence in set_damaged_aside(root, dry_run=dry_run):
        print(f"mergebench: {sentence}", file=sys.stderr)
