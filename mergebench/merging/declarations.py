"""What a method's file declares, read from its syntax tree: no torch, so that the Snakefile can ask.

The registry executes the same declarations; a test holds the two against each other.
"""

import ast
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

METHODS = Path(__file__).resolve().parent / "methods"
SCALE = "scale"


@dataclass(frozen=True)
class Declaration:
    """One method as the workflow sees it.

    Attributes:
        data: what the paper lets it use: "nothing", "training" samples or "validation" scores.
        statistics: kinds of calibration statistics that it reads ("fisher", "gram", "mask").
        spectra: whether it reads the magnitude spectra of the task vectors.
        calibration: whether it passes calibration rows through the models itself.
        random: whether its result depends on the seed.
        control: whether it is there to compare methods with, and is none of them.
        grid_parameters: what its grid may vary: name -> (lowest, highest) value.
        per_domain: those of them that are tuned for one domain at a time.
        parameters: every parameter that can be fixed in the configuration.
    """

    data: str
    statistics: tuple[str, ...]
    spectra: bool
    calibration: bool
    random: bool
    control: bool
    grid_parameters: dict[str, tuple[float, float]]
    per_domain: tuple[str, ...]
    parameters: tuple[str, ...]


@lru_cache(maxsize=1)
def declared() -> dict[str, Declaration]:
    """Every method by name, in alphabetical order."""
    return {path.stem: _read(path) for path in sorted(METHODS.glob("[a-z]*.py"))}


def _read(path: Path) -> Declaration:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    function, decorator = next(
        (node, call)
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        for call in node.decorator_list
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "method"
    )
    keywords = {k.arg: k.value for k in decorator.keywords}
    parameters = [a.arg for a in function.args.kwonlyargs]
    ranges = {a.arg: _range(a.annotation) for a in function.args.kwonlyargs}
    per_domain = _literal(keywords.get("per_domain"), {})
    grid = {name: bounds for name, bounds in ranges.items() if bounds and name not in per_domain.values()}
    grid |= {single: ranges[many] or (-math.inf, math.inf) for single, many in per_domain.items()}
    if SCALE in keywords:
        grid[SCALE] = (-math.inf, math.inf)
        parameters.append(SCALE)
    return Declaration(
        data=_literal(keywords.get("data"), "nothing"),
        statistics=tuple(_literal(keywords.get("statistics"), ())),
        spectra=bool(_literal(keywords.get("spectra"), False)),
        calibration="propagation" in keywords,
        random=bool(_literal(keywords.get("random"), False)),
        control=bool(_literal(keywords.get("control"), False)),
        grid_parameters=grid,
        per_domain=tuple(per_domain),
        parameters=tuple(parameters),
    )


def _literal(node: ast.expr | None, default: Any) -> Any:
    return default if node is None else ast.literal_eval(node)


def _range(annotation: ast.expr | None) -> tuple[float, float] | None:
    """The bounds in ``Annotated[float, Range(low, high)]``, if the parameter has any."""
    for node in ast.walk(annotation) if annotation is not None else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Range":
            low, high = (float(ast.literal_eval(argument)) for argument in node.args[:2])
            return low, high
    return None
