"""The captions of rules/captions as HTML: the same text as in Snakemake's report."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import jinja2
from docutils.core import publish_parts
from markupsafe import Markup

from mergebench.errors import MergebenchError
from mergebench.fingerprint import ROOT

FOLDER = ROOT.parent / "rules" / "captions"
SETTINGS = {
    "_disable_config": True,
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "initial_header_level": 4,
    "report_level": 5,
    "syntax_highlight": "none",
}


def caption(stem: str, *, warnings: tuple[str, ...] = (), preset: str = "") -> Markup:
    """The caption of a table or figure; empty where there is none, as in a package without its workflow.

    Args:
        stem: of its file.
        warnings: that it shall repeat; the tables and figures themselves have theirs.
        preset: named in the introduction.

    Raises:
        MergebenchError: the file is not a Jinja template.
    """
    path = FOLDER / f"{stem}.rst"
    if not path.is_file():
        return Markup("")
    variables = {"snakemake": SimpleNamespace(config={"warnings": list(warnings), "preset": preset})}
    try:
        text = _environment().from_string(path.read_text(encoding="utf-8")).render(variables)
    except jinja2.TemplateError as error:
        raise MergebenchError(f"{path} is not a template that Jinja can fill in ({error}); correct it.") from error
    return Markup(publish_parts(text, writer="html5", settings_overrides=SETTINGS)["body"])


@cache
def _environment() -> Any:
    return jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # reStructuredText; docutils escapes
