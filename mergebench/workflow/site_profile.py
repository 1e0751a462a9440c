"""What a Snakemake profile says that decides a plan: the site, its quota, and the resources that it sets itself."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from mergebench.errors import MergebenchError
from mergebench.workflow.resources import Site
from mergebench.workflow.storage import DEFAULT_GPUS

KEPT_SETTINGS = ("default-resources", "resources", "set-resources", "set-threads", "jobs")


@dataclass(frozen=True)
class Profile:
    """What a Snakemake profile says that decides a plan."""

    settings: dict[str, Any]

    @classmethod
    def read(cls, folder: Path | None) -> Self:
        """The profile in `folder`; the defaults where there is none.

        Raises:
            MergebenchError: the folder has no `config.yaml`, or it is not YAML.
        """
        if folder is None:
            return cls({})
        path = folder / "config.yaml"
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except OSError:
            raise MergebenchError(f"there is no {path}; name the folder of a profile, for example profiles/slurm.") from None
        except yaml.YAMLError as error:
            raise MergebenchError(f"{path} is not valid YAML: {error}".replace("\n", " ")) from None
        return cls({key: content[key] for key in KEPT_SETTINGS if key in content})

    @property
    def site(self) -> Site:
        """The site's facts."""
        return Site.of(self.settings.get("default-resources"))

    @property
    def gpus(self) -> int:
        """The GPU quota."""
        quota = self.settings.get("resources", {}).get("gpu")
        return quota if isinstance(quota, int) else DEFAULT_GPUS

    @property
    def slots(self) -> int:
        """Jobs without a GPU that run at once."""
        jobs = self.settings.get("jobs")
        return jobs if isinstance(jobs, int) else os.cpu_count() or 1
