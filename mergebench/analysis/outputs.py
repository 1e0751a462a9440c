"""What the analysis can write, by name. Standard library only: the workflow's plan reads it for every job."""

from __future__ import annotations

from dataclasses import dataclass

TABLE_FORMATS = ("csv", "md")
FIGURE_FORMATS = ("png", "svg")


@dataclass(frozen=True)
class Output:
    """A table or figure: its file stem (also that of its caption), title, and where the paper has it ("" if nowhere)."""

    stem: str
    title: str
    paper: str

    def filenames(self) -> tuple[str, ...]:
        """Every format of it."""
        formats = TABLE_FORMATS if self in TABLES else FIGURE_FORMATS
        return tuple(f"{self.stem}.{suffix}" for suffix in formats)


TABLES = (
    Output("headline", "Headline: performance, retention and cost", ""),
    Output("normalised_performance", "Normalised performance (% of the specialists)", "Table 7"),
    Output("forgetting", "Generalisation (% of the base)", "Table 8"),
    Output("runtime", "Run time of the merging methods", "Section 4.3"),
    Output("specialisation", "Specialisation: domain scores in points (gain over the base)", ""),
    Output("scores", "Raw scores of every model on every benchmark (points, higher is better)", ""),
)
FIGURES = (
    Output("multitask_performance", "Normalised performance", "Figure 2"),
    Output("performance_forgetting", "Performance against forgetting", "Figure 3"),
    Output("runtime", "Run time: algorithm and validation", "Figure 5"),
    Output("specialisation", "Specialisation of the specialists", ""),
)
FILENAMES = tuple(name for output in (*TABLES, *FIGURES) for name in output.filenames())


def table_title(stem: str) -> str:
    """Title of a table."""
    return next(output.title for output in TABLES if output.stem == stem)
