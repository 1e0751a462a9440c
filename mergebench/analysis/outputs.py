"""What the analysis can write, by name. Standard library only: the workflow's plan reads it for every job."""

from __future__ import annotations

from dataclasses import dataclass

TABLE_FORMATS = ("csv", "md")
FIGURE_FORMATS = ("png", "svg")
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
    Output("ranks", "Mean ranks over the bases", "", "Statistics"),
    Output("claims", "The paper's claims, on its own tables and here", "Sections 4.1 to 4.4", "Statistics"),
    Output("crosscheck", "Cross-check with the paper's Tables 7 and 8", "Tables 7, 8", "Statistics"),
    Output("runtime", "Run time of the merging methods", "Section 4.3", "Tables"),
    Output("specialisation", "Specialisation: domain scores in points (gain over the base)", "", "Tables"),
    Output("scores", "Raw scores of every model on every benchmark (points, higher is better)", "", "Tables"),
    Output("tuning", "Tuning: the winner of every grid on the surrogates", "Section 3.3", "Tables"),
    Output("fidelity", "Surrogate fidelity: do surrogates rank models as the benchmarks do?", "", "Tables"),
    Output("efficiency", "Efficiency: what jobs asked for and what they used", "", "Efficiency"),
)
FIGURES = (
    Output("multitask_performance", "Normalised performance", "Figure 2", "Figures"),
    Output("performance_forgetting", "Performance against forgetting", "Figure 3", "Figures"),
    Output("critical_difference", "Mean ranks and critical differences", "", "Figures"),
    Output("runtime", "Run time: algorithm and validation", "Figure 5", "Figures"),
    Output("specialisation", "Specialisation of the specialists", "", "Figures"),
    Output("training", "Losses while training", "", "Figures"),
)
FILENAMES = tuple(name for output in (*TABLES, *FIGURES) for name in output.filenames())


def table_title(stem: str) -> str:
    """Title of a table."""
    return next(output.title for output in TABLES if output.stem == stem)
