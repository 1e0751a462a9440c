"""How a method's file describes it, read from its syntax tree as `declarations` does: no torch, so that the workflow can ask."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache

from mergebench.merging.declarations import METHODS


@dataclass(frozen=True)
class Description:
    """One method in words.

    Attributes:
        title: as in tables.
        paper: who published it, and when ("Yadav et al., 2023").
        arxiv: identifier of that paper.
        data: what the paper lets it use: "nothing", "training" samples or "validation" scores.
        summary: the first line of the function's docstring.
    """

    title: str
    paper: str
    arxiv: str
    data: str
    summary: str


@lru_cache(maxsize=1)
def described() -> dict[str, Description]:
    """Every method by name, in alphabetical order."""
    found = {}
    for path in sorted(METHODS.glob("[a-z]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        function, keywords = next(
            (node, {keyword.arg: keyword.value for keyword in call.keywords})
            for node in tree.body
            if isinstance(node, ast.FunctionDef)
            for call in node.decorator_list
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "method"
        )
        reference = keywords["reference"]
        assert isinstance(reference, ast.Call)  # the registry takes nothing else
        given = {str(keyword.arg): keyword.value for keyword in reference.keywords}
        given |= dict(zip(("paper", "arxiv"), reference.args, strict=False))
        found[path.stem] = Description(
            title=ast.literal_eval(keywords["title"]),
            paper=ast.literal_eval(given["paper"]),
            arxiv=ast.literal_eval(given["arxiv"]),
            data=ast.literal_eval(keywords["data"]) if "data" in keywords else "nothing",
            summary=(ast.get_docstring(function) or "").partition("\n")[0].rstrip("."),
        )
    return found
