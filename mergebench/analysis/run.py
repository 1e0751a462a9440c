"""The analysis stage: scores, costs and search logs in, tables and figures out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergebench.analysis.cost_table import TABLES as COST_TABLES
from mergebench.analysis.costs import method_costs, read_costs, read_searches
from mergebench.analysis.difference_table import TABLES as DIFFERENCE_TABLES
from mergebench.analysis.efficiency import read_jobs
from mergebench.analysis.fidelity import read_surrogates
from mergebench.analysis.figures import draw, save
from mergebench.analysis.guideline_table import TABLES as GUIDELINE_TABLES
from mergebench.analysis.inference_tables import TABLES as INFERENCE_TABLES
from mergebench.analysis.interference_tables import TABLES as INTERFERENCE_TABLES
from mergebench.analysis.items import item_files
from mergebench.analysis.latex import to_latex
from mergebench.analysis.losses import read_losses
from mergebench.analysis.outputs import FIGURE_FORMATS, FILENAMES, TABLE_FORMATS
from mergebench.analysis.pareto_table import TABLES as PARETO_TABLES
from mergebench.analysis.prepared import read_prepared
from mergebench.analysis.render import to_csv, to_markdown
from mergebench.analysis.scope import Scope
from mergebench.analysis.scores import read_scores, select
from mergebench.analysis.seed_table import TABLES as SEED_TABLES
from mergebench.analysis.setting_tables import TABLES as SETTING_TABLES
from mergebench.analysis.tables import TABLES as RESULT_TABLES
from mergebench.analysis.tables import Evidence
from mergebench.analysis.winners import read_winners
from mergebench.errors import MergebenchError

if TYPE_CHECKING:
    from mergebench.artifacts import Job

TABLES = (
    RESULT_TABLES
    | INFERENCE_TABLES
    | SEED_TABLES
    | COST_TABLES
    | DIFFERENCE_TABLES
    | PARETO_TABLES
    | GUIDELINE_TABLES
    | SETTING_TABLES
    | INTERFERENCE_TABLES
)
RENDERERS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
_OF_THE_WRAPPER = ("manifest", "cost")


def run(job: Job) -> dict[str, Any]:
    """Write the tables and figures whose file names the job's outputs have; any subset of `outputs.FILENAMES`.

    Inputs: `scores` and `costs` (JSON records), `items` (parquet, of the scores), `searches` (parquet logs) and `winners` (YAML) of
    tuning, `merges` (manifests of merged models), `losses` (JSONL of training), `prepared` (manifests of data), `interference` (parquet,
    of task vectors); each may be incomplete or absent, which shows as missing cells, and may hold more than the campaign, which is left
    out. Spec: see `Scope.from_spec`; its warnings stand in everything that is written.

    Returns:
        Number of score records used, and the names of what was written.
    """
    wanted = {name: job.outputs[name].name for name in job.outputs if name not in _OF_THE_WRAPPER}
    unknown = sorted(set(wanted.values()) - set(FILENAMES))
    if unknown:
        raise MergebenchError(f"The analysis cannot make {', '.join(unknown)}; it makes {', '.join(FILENAMES)}.")
    scope = Scope.from_spec(job.spec)
    everything = read_scores(job.paths("scores"))
    scores = select(everything, scope)
    charges = read_costs(job.paths("costs"))
    costs = method_costs(charges, read_searches(job.paths("searches")), scope)
    jobs, losses = read_jobs(job.paths("costs"), scope), read_losses(job.paths("losses"))
    surrogates = read_surrogates(everything, job.paths("searches"), job.paths("merges"), scope)
    winners = read_winners(job.paths("winners"), scope)
    prepared = read_prepared(job.paths("prepared"))
    items = item_files(job.paths("items"))
    evidence = Evidence(
        scope, scores, costs, jobs, losses, surrogates, winners, items, charges, prepared, job.paths("interference"),
        progress=lambda done, total: job.progress(round(done / 1e6, 1), round(total / 1e6, 1), "MB of items"),
    )  # fmt: skip

    tables = {name: TABLES[name](evidence) for name in _stems(wanted, TABLE_FORMATS)}
    figures = {name: draw(name, evidence) for name in _stems(wanted, FIGURE_FORMATS)}
    job.next_part()
    for done, (output, filename) in enumerate(wanted.items(), start=1):
        stem, _, suffix = filename.rpartition(".")
        if suffix in RENDERERS:
            job.staging(output).write_text(RENDERERS[suffix](tables[stem], scope.warnings), encoding="utf-8")
        else:
            save(figures[stem], job.staging(output), suffix)
        job.progress(done, len(wanted), "tables and figures")
    return {"scores": len(scores), "written": sorted(wanted.values())}


def _stems(wanted: dict[str, str], suffixes: tuple[str, ...]) -> list[str]:
    """Names, each once, of the wanted files with one of these suffixes."""
    return sorted({stem for stem, _, suffix in (name.rpartition(".") for name in wanted.values()) if suffix in suffixes})
