"""The report stage: tables, figures, records and logs in, one HTML file and three CSV files out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergebench.report.material import Material
from mergebench.report.outputs import INPUTS
from mergebench.report.page import compose

if TYPE_CHECKING:
    from mergebench.artifacts import Job


def run(job: Job) -> dict[str, Any]:
    """Write the report of a campaign.

    Inputs: those of `outputs.INPUTS`, each as far as it is there. Outputs: `outputs.FILENAMES`, or some of them. Spec: see `Material`.

    Returns:
        The names of what was written.
    """
    files = compose(Material(job.spec, {name: job.paths(name) for name in INPUTS}))
    wanted = [name for name in job.outputs if name in files]
    for name in wanted:
        job.staging(name).write_text(files[name], encoding="utf-8")
    return {"written": wanted}
