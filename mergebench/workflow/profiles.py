"""Make the profiles of this repository known to Snakemake by name.

``--profile NAME`` looks in the current folder and in the user's configuration, not in ``profiles/``.
"""

import os
from pathlib import Path

from mergebench.errors import MergebenchError, nearest

PROFILES = Path("profiles")


def configuration_folder() -> Path:
    """Where Snakemake looks for a user's profiles."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "snakemake"


def install(name: str) -> Path:
    """Link ``profiles/NAME`` of the current folder into the user's configuration; returns the link.

    Raises:
        MergebenchError: there is no such profile, or something else of that name is installed.
    """
    source = PROFILES / name
    if not (source / "config.yaml").is_file():
        present = sorted(p.parent.name for p in PROFILES.glob("*/config.yaml"))
        raise MergebenchError(f"there is no {source}/config.yaml in {Path.cwd()}; {nearest(name, present)}.")
    link = configuration_folder() / name
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        raise MergebenchError(f"{link} exists and is not a link; move it away, or use `--profile {source}`.")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(source.resolve())
    return link
