"""The files of the report. Standard library only: the workflow's plan reads it for every job."""

from mergebench.analysis.outputs import INPUTS as ANALYSED

INPUTS = {
    "tables": "tables/*",
    "figures": "figures/*",
    **{name: ANALYSED[name] for name in ("scores", "costs", "searches", "winners", "losses")},
    "curves": "tuning/*/*/curve.parquet",
    "models": "models/*/*/manifest.json",
    "datasets": "data/*/manifest.json",
}
"""What the report reads, by name, as patterns below the results of a preset."""
FILENAMES = ("index.html", "provenance.csv", "searches.csv", "losses.csv", "failures.csv")
PAGE, PROVENANCE, SEARCHES, LOSSES, FAILURES = FILENAMES
