"""The report of whatever is there: the campaign may be unfinished, and no workflow has to run."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from mergebench.analysis import run as analysis
from mergebench.analysis.outputs import FILENAMES, TABLES
from mergebench.analysis.outputs import INPUTS as ANALYSED
from mergebench.artifacts import Job as Work
from mergebench.errors import MergebenchError
from mergebench.report.material import Job, Material
from mergebench.report.outputs import INPUTS, PAGE
from mergebench.report.page import compose
from mergebench.workflow.plan import Plan
from mergebench.workflow.status.look import look

OWN = "report"  # the job of the workflow that does what is done here
_TABLE_NAMES = {name for table in TABLES for name in table.filenames()}


def write(plan: Plan, output: Path | None = None) -> Path:
    """Analyse the files of a campaign as they are now and write the page; the campaign's own tables and figures stay as they are.

    Args:
        plan: of the campaign; `plan.results` is its folder.
        output: the page to write; by default that of the workflow.

    Raises:
        MergebenchError: there is no such folder, or a record is malformed.
    """
    results = Path(plan.results)
    if not results.is_dir():
        raise MergebenchError(f"{results} is not a folder; name the folder of a preset's results, for example results/tiny.")
    page = output or results / "report" / PAGE
    page.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{page.name}.tmp-", dir=page.parent) as folder:
        drawn = _analysed(plan, Path(folder))
        found = {name: sorted(results.glob(pattern)) for name, pattern in INPUTS.items()} | drawn
        files = compose(Material(_spec(plan, "report"), found, _unfinished(plan)))
        staged = Path(folder) / PAGE
        staged.write_text(files[PAGE], encoding="utf-8")
        os.replace(staged, page)
    return page


def _analysed(plan: Plan, folder: Path) -> dict[str, list[Path]]:
    """Tables and figures of what is there, made in a folder of their own."""
    results = Path(plan.results)
    places = {name: folder / ("tables" if name in _TABLE_NAMES else "figures") / name for name in FILENAMES}
    inputs = {name: sorted(results.glob(pattern)) for name, pattern in ANALYSED.items()}
    work = Work("analyse", _spec(plan, "analyse"), inputs, places, folder / "state")
    analysis.run(work)
    for name, path in work.staged.items():
        os.replace(path, places[name])
    return {kind: sorted((folder / kind).iterdir()) for kind in ("tables", "figures")}


def _spec(plan: Plan, stage: str) -> dict[str, Any]:
    """A spec as a job gets it, whose keys are sorted: rows then have the order that they have in the workflow."""
    made: dict[str, Any] = json.loads(json.dumps(plan.spec(stage), sort_keys=True))
    return made


def _unfinished(plan: Plan) -> tuple[Job, ...]:
    """Jobs that run or have failed, by the traces that they have left."""
    status = look(plan)
    failed = [Job(each.title, "failed", each.reason, tuple(each.lines), each.log) for each in status.failed if each.title != OWN]
    return (*failed, *(Job(each.title, "running", each.progress, (), each.log) for each in status.running))
