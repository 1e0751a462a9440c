"""What the analysis can write, by name. Standard library only: the workflow's plan reads it for every job."""

from __future__ import annotations

from dataclasses import dataclass

INPUTS = {
    "scores": "scores/*/*/*.json",
    "items": "scores/*/*/*.items.parquet",
    "costs": "costs/**/*.json",
    "searches": "tuning/*/*/search.parquet",
    "winners": "tuning/*/*/best.yaml",
    "losses": "models/*/*/losses.jsonl",
    "merges": "models/*/merged_*/manifest.json",
    "prepared": "data/*/manifest.json",
    "interference": "vectors/*/interference.parquet",
}
"""What the analysis reads, by name, as patterns below the results of a preset."""
TABLE_FORMATS = ("csv", "md", "tex")
FIGURE_FORMATS = ("png", "svg", "pdf")
REPORT_FORMATS = ("csv", "md", "png", "svg")
"""Those that Snakemake's report holds."""
WARNING = "warning"
"""The last column of a CSV table that must not be read without it."""


@dataclass(frozen=True)
class Output:
    """A table or figure: its file stem (also that of its caption), title, where the paper has it ("" if nowhere), and the section
    of the report in which it stands."""

    stem: str
    title: str
    paper: str
    section: str

    def filenames(self) -> tuple[str, ...]:
        """Every format of it."""
        formats = TABLE_FORMATS if self in TABLES else FIGURE_FORMATS
        return tuple(f"{self.stem}.{suffix}" for suffix in formats)


TABLES = (
    Output("headline", "Headline: performance, retention and cost", "", "Tables"),
    Output("normalised_performance", "Normalised performance (% of the specialists)", "Table 7", "Tables"),
    Output("forgetting", "Generalisation (% of the base)", "Table 8", "Tables"),
    Output("uncertainty", "Uncertainty: intervals, and what cannot be separated from the best", "", "Statistics"),
    Output("seeds", "Seeds: how far random numbers move a result", "", "Statistics"),
    Output("ranks", "Mean ranks over the bases", "", "Statistics"),
    Output("claims", "The paper's claims, on its own tables and here", "Sections 4.1 to 4.4", "Statistics"),
    Output("crosscheck", "Cross-check with the paper's Tables 7 and 8", "Tables 7, 8", "Statistics"),
    Output("runtime", "Run time of the merging methods", "Section 4.3", "Tables"),
    Output("costs", "Costs: hours, memory, energy, price, and what a point over Model Soup costs", "", "Tables"),
    Output("differences", "Differences between methods, paired on the same items", "", "Statistics"),
    Output("pareto", "Pareto frontier of performance, retention and cost", "", "Decisions"),
    Output("guideline", "Guideline: which method in which situation", "Section 4.4", "Decisions"),
    Output("specialisation", "Specialisation: domain scores in points (gain over the base)", "", "Tables"),
    Output("scores", "Raw scores of every model on every benchmark (points, higher is better)", "", "Tables"),
    Output("tuning", "Tuning: the winner of every grid on the surrogates", "Section 3.3", "Tables"),
    Output("fidelity", "Surrogate fidelity: do surrogates rank models as the benchmarks do?", "", "Tables"),
    Output("methods", "Merging methods and what they need", "Table 1", "Settings"),
    Output("training_sets", "Training sets", "Table 2", "Settings"),
    Output("benchmarks", "Benchmarks and surrogates", "Table 3", "Settings"),
    Output("training_rows", "Statistics of the training data", "Table 5", "Settings"),
    Output("grids", "Search of the hyperparameters", "Table 6", "Settings"),
    Output("interference", "Interference: how the task vectors of a base relate", "", "Task vectors"),
    Output("efficiency", "Efficiency: what jobs asked for and what they used", "", "Efficiency"),
)
FIGURES = (
    Output("multitask_performance", "Normalised performance", "Figure 2", "Figures"),
    Output("multitask_groups", "Normalised performance by group of bases", "Figure 2", "Figures"),
    Output("performance_forgetting", "Performance against forgetting", "Figure 3", "Figures"),
    Output("critical_difference", "Mean ranks and critical differences", "", "Figures"),
    Output("runtime", "Run time: algorithm and validation", "Figure 4", "Figures"),
    Output("performance_runtime", "Performance against run time", "Figure 5", "Figures"),
    Output("pareto", "Performance, retention and cost, with the Pareto frontier", "", "Figures"),
    Output("specialisation", "Specialisation of the specialists", "", "Figures"),
    Output("training", "Losses while training", "", "Figures"),
    Output("interference_cosine", "Cosines of the task vectors", "", "Task vectors"),
    Output("interference_sign_conflict", "Sign conflicts of the task vectors", "", "Task vectors"),
    Output("interference_overlap", "Overlap of the largest entries", "", "Task vectors"),
    Output("interference_norms", "Norms of the task vectors", "", "Task vectors"),
)
FILENAMES = tuple(name for output in (*TABLES, *FIGURES) for name in output.filenames())


def table_title(stem: str) -> str:
    """Title of a table."""
    return next(output.title for output in TABLES if output.stem == stem)
