"""A synthetic campaign with everything that a report shows, and its report."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from mergebench.analysis import run as analysis
from mergebench.analysis.outputs import FILENAMES as ANALYSED
from mergebench.analysis.outputs import TABLES
from mergebench.artifacts import Job, execute
from mergebench.report import run as stage
from mergebench.report.outputs import FILENAMES, INPUTS, PAGE
from tests.unit.analysis.synthetic import IN_DOMAIN, SURROGATES, Campaign, plain_value

LLAMA, GEMMA = "tiny-llama-strong", "tiny-gemma-2-strong"
TABLE_FILES = {name for table in TABLES for name in table.filenames()}
HOSTILE = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>\"'&|`"


@dataclass
class Reported:
    """A campaign whose report can be made and read."""

    campaign: Campaign
    preset: str = "tiny"

    @property
    def root(self) -> Path:
        return self.campaign.root

    @property
    def spec(self) -> dict[str, Any]:
        own = {"results": str(self.root), "preset": self.preset, "command": "snakemake --profile profiles/tiny"}
        return {**self.campaign.spec, **own, "configuration": {"preset": self.preset, "seed": 0, "bases": self.campaign.bases}}

    @property
    def files(self) -> dict[str, list[Path]]:
        return {name: sorted(self.root.glob(pattern)) for name, pattern in INPUTS.items()}

    def analyse(self, names: tuple[str, ...] = ANALYSED) -> None:
        """Write tables and figures where the workflow has them."""
        places = {name: self.root / ("tables" if name in TABLE_FILES else "figures") / name for name in names}
        execute(analysis, Job("analyse", self.campaign.spec, self.campaign.inputs, places, self.root / ".state/analyse"))

    def job(self, folder: str = "report") -> Job:
        return Job("report", self.spec, self.files, {name: self.root / folder / name for name in FILENAMES}, self.root / ".state/report")

    def make(self, folder: str = "report") -> str:
        """Run the stage; returns the page."""
        execute(stage, self.job(folder))
        return (self.root / folder / PAGE).read_text(encoding="utf-8")


def value_of(base: str, model: str, benchmark: str) -> float:
    """Methods that differ, so that there is something to sort."""
    if model.startswith("merged_"):
        return round(0.3 + 0.05 * (len(model) % 8) + 0.02 * (len(benchmark) % 5), 3)
    return plain_value(base, model, benchmark)


def fill(root: Path) -> Reported:
    """A campaign with scores, some items, searches with parameters, manifests, datasets, costs and a failed attempt."""
    campaign = Campaign(root, methods=["model_soup", "task_arithmetic", "ties", "fisher"])
    campaign.write(value_of)
    for base in campaign.bases:
        for model in campaign.scope.models:
            for benchmark in IN_DOMAIN if model.startswith("specialist") else (*IN_DOMAIN, "mmlu"):
                mean = value_of(base, model, benchmark)
                campaign.write_items(base, model, benchmark, [1.0] * round(40 * mean) + [0.0] * (40 - round(40 * mean)))
            manifest = root / "models" / base / model / "manifest.json"
            manifest.parent.mkdir(parents=True, exist_ok=True)
            known = json.loads(manifest.read_text()) if manifest.is_file() else {"files": {}}
            manifest.write_text(json.dumps({**known, "weights_digest": f"{base} {model}", "spec": {"seed": 7, "code": "c0de"}}))
        for method in campaign.scope.tuned:
            write_search(root, base, method)
    for path in root.glob("scores/*/*/*.json"):
        extra = {"weights_digest": f"weights of {path.parent.name}", "data": {"source": "tiny", "rows_sha256": path.stem * 8}}
        extra |= {"settings": {"shots": 0}, "versions": {"torch": "2.13.0"}, "task_hash": f"task {path.stem}"}
        path.write_text(json.dumps(json.loads(path.read_text()) | extra))
    for benchmark in {path.stem for path in root.glob("scores/*/*/*.json")}:
        path = root / "data" / benchmark / "manifest.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**known, "source": "tiny", "files": {}, "rows": {"rows": 40}, "sha256": {"rows": benchmark * 8}}))
    end = {"start": "2026-01-01T00:00:00+00:00", "seconds": 12.5, "gpus": 1, "reason": "SIGTERM", "slurm_job_id": "17"}
    campaign.write_cost(
        f"merge/{LLAMA}/ties", {"algorithm": 0.5}, method="ties", attempts={"failed": 1, "wall_seconds": 12.5, "ends": [end]}
    )
    return Reported(campaign)


def write_search(root: Path, base: str, method: str) -> None:
    """Three candidates on all surrogates, the second of which was chosen."""
    folder = root / "tuning" / base / method
    rows = [
        {
            "candidate": number,
            "stage": "grid",
            "parameters": json.dumps({"scale": 0.1 + 0.4 * number}),
            "seed": 0,
            "surrogate": surrogate,
            "domain": domain,
            "block": None,
            "value": 0.1 + 0.2 * (number % 2),
            "normalised": 0.2 + 0.4 * (number % 2),
            "seconds": 1.5,
            "weights": f"{method} {number}",
        }
        for number in range(3)
        for domain, surrogate in SURROGATES.items()
    ]
    pd.DataFrame(rows).astype({"block": "Int64"}).to_parquet(folder / "search.parquet")
    pd.DataFrame({"objective": [0.2, 0.6, 0.6]}).to_parquet(folder / "curve.parquet")
    best = {"parameters": {"scale": 0.5}, "objective": 0.6, "candidates": 3, "evaluations": 3.0}
    (folder / "best.yaml").write_text(yaml.safe_dump(best))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """A complete campaign with its report; tests only read it."""
    reported = fill(tmp_path_factory.mktemp("finished"))
    reported.analyse()
    reported.make()
    return reported


@pytest.fixture
def reported(finished: Reported, tmp_path: Path) -> Reported:
    """A copy that a test may change."""
    shutil.copytree(finished.root, tmp_path / "results")
    shutil.rmtree(tmp_path / "results" / "report")
    return Reported(Campaign(tmp_path / "results", methods=finished.campaign.methods))
