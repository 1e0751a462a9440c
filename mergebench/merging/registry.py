"""The methods there are: each is one decorated function in `merging/methods/`.

The function's signature is the only place where a parameter, its type, its default and its range are written:

    @method(title="TIES merging", reference=Reference("Yadav et al., 2023", "2306.01708"), ...)
    def ties(context: Tensors, *, density: Annotated[float, Range(0, 1)] = 0.2) -> torch.Tensor: ...
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import math
import pkgutil
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mergebench.errors import MergebenchError

if TYPE_CHECKING:
    import torch

Scope = Literal["element", "matrix", "layer"]
Data = Literal["nothing", "training", "validation"]


@dataclass(frozen=True)
class Range:
    """An interval with both ends included."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"[{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Reference:
    """The paper that published a method."""

    paper: str
    arxiv: str

    @property
    def url(self) -> str:
        """The paper's page."""
        return f"https://arxiv.org/abs/{self.arxiv}"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method.

    Attributes:
        name: As in recipes and grids.
        kind: "number", "integer", "flag", "choice", "numbers" (one number, or one per domain) or "domain".
        default: Used where a recipe says nothing.
        range: Allowed numbers; None means any finite one.
        choices: Allowed words of a "choice".
    """

    name: str
    kind: str
    default: Any
    range: Range | None = None
    choices: tuple[str, ...] = ()

    def check(self, value: Any, owner: str) -> Any:
        """`value` in this parameter's type; `owner` names the method in messages.

        Raises:
            MergebenchError: The value has another type or lies outside the range.
        """
        if value is None and self.default is None:
            return None
        if self.kind == "numbers" and isinstance(value, Mapping):
            return {str(domain): self._number(number, f"{owner}.{self.name}.{domain}") for domain, number in value.items()}
        if self.kind in ("number", "integer", "numbers"):
            return self._number(value, f"{owner}.{self.name}")
        expected = {"flag": bool}.get(self.kind, str)
        if not isinstance(value, expected) or (self.choices and value not in self.choices):
            raise MergebenchError(f"{owner}.{self.name} is {value!r}; expected {self.describe()}.")
        return value

    def describe(self) -> str:
        """What the parameter accepts, in words."""
        if self.choices:
            return " or ".join(repr(choice) for choice in self.choices)
        words = {"number": "a number", "integer": "an integer", "flag": "true or false", "domain": "a domain"}
        text = words.get(self.kind, "a number, or one per domain")
        return f"{text} in {self.range}" if self.range else text

    def _number(self, value: Any, key: str) -> float | int:
        integer = self.kind == "integer"
        sound = isinstance(value, int if integer else (int, float)) and not isinstance(value, bool)
        if not sound or not math.isfinite(value) or (self.range and not self.range.low <= value <= self.range.high):
            raise MergebenchError(f"{key} is {value!r}; expected {self.describe()}.")
        return value if integer else float(value)


SCALE = "scale"


@dataclass(frozen=True)
class Method:
    """A merging method: what it is, what it needs, and the function that computes its direction.

    Attributes:
        name: As in configurations and results.
        title: As in tables.
        reference: Its paper.
        scope: What it must see at once: single elements, whole matrices, or layers in order.
        data: What the paper lets it use: nothing, training samples or validation scores.
        statistics: Statistics of every specialist that it reads.
        spectra: Whether it needs global magnitude thresholds.
        random: Whether its result depends on the seed.
        scaled: Whether the merged model is base + scale * direction with a scale to choose; else the scale is 1.
        grid: The paper's grid (Table 6): parameter -> values, in the order of the search.
        per_domain: grid parameter -> the function's parameter that holds one value per domain. Such values are chosen
            first, each on its own domain's surrogate (candidates carry `only`, the domain).
        note: Where a value is an assumption, which.
        parameters: The direction's parameters, from the signature, and the scale if there is one.
        direction: (Tensors, **parameters) -> direction, float32, in the parameter's shape. Pure.
        total: (Tensors, **parameters) -> a tensor to add up over all parameters in a walk beforehand, or None. It is called for another
            walk, with what has been added up in `context.totals`, until it returns None.
        tensor_total: (Tensors, **parameters) -> a tensor to add up over each tensor alone beforehand, or None for no need.
        kernel: (Block, out, **parameters) -> None: the same direction, fused for the CPU, written into out (float32 (m,)); bit for
            bit what `direction` returns. None: `direction` is used everywhere.
        total_kernel, tensor_total_kernel: (Block, **parameters) -> number or array, as `total` and `tensor_total`, fused.
        solve: For methods of scope "matrix": (list of Matrices, list of parameter sets) -> Iterator[list of directions], one list per set:
            parameters that share one Gram matrix in every domain are handed over together, with all sets of a grid.
        through_thresholds: Parameters that act through thresholds alone: two values that keep the same entries are one candidate.
        propagation: For methods of scope "layer": (Job, Models) -> `layers.Propagation`: what the stages that merge hand it, calibration
            samples of every domain, on their way through the layers merged so far.
        control: Whether it is there to compare methods with, and is none of them: it has no rank, no claim is about it.
    """

    name: str
    title: str
    reference: Reference
    scope: Scope
    data: Data
    statistics: tuple[str, ...]
    spectra: bool
    random: bool
    scaled: bool
    grid: Mapping[str, tuple[float, ...]]
    per_domain: Mapping[str, str]
    note: str
    parameters: Mapping[str, Parameter]
    direction: Callable[..., torch.Tensor]
    total: Callable[..., torch.Tensor | None] | None = None
    kernel: Callable[..., None] | None = None
    total_kernel: Callable[..., Any] | None = None
    tensor_total: Callable[..., torch.Tensor | None] | None = None
    tensor_total_kernel: Callable[..., Any] | None = None
    solve: Callable[..., Iterator[list[torch.Tensor]]] | None = None
    through_thresholds: tuple[str, ...] = ()
    propagation: Callable[..., Any] | None = None
    control: bool = False

    def validate(self, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Every parameter with its value, defaults filled in.

        Raises:
            MergebenchError: A name is unknown, or a value has the wrong type or range.
        """
        given = dict(parameters or {})
        for name in given:
            if name not in self.parameters:
                near = difflib.get_close_matches(name, self.parameters, n=1)
                allowed = ", ".join(self.parameters) or "none"
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise MergebenchError(f"{self.name} has no parameter {name!r}; it has {allowed}.{hint}")
        return {name: known.check(given.get(name, known.default), self.name) for name, known in self.parameters.items()}

    def split(self, parameters: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], float]:
        """The direction's parameters, and the scale; validated, defaults filled in."""
        values = self.validate(parameters)
        return values, float(values.pop(SCALE, 1.0))


_METHODS: dict[str, Method] = {}


def method(
    *,
    title: str,
    reference: Reference,
    scope: Scope = "element",
    data: Data = "nothing",
    statistics: tuple[str, ...] = (),
    spectra: bool = False,
    random: bool = False,
    scale: float | None = None,
    grid: Mapping[str, tuple[float, ...]] | None = None,
    per_domain: Mapping[str, str] | None = None,
    note: str = "",
    total: Callable[..., torch.Tensor | None] | None = None,
    kernel: Callable[..., None] | None = None,
    total_kernel: Callable[..., Any] | None = None,
    tensor_total: Callable[..., torch.Tensor | None] | None = None,
    tensor_total_kernel: Callable[..., Any] | None = None,
    solve: Callable[..., Iterator[list[torch.Tensor]]] | None = None,
    through_thresholds: tuple[str, ...] = (),
    propagation: Callable[..., Any] | None = None,
    control: bool = False,
) -> Callable[[Callable[..., torch.Tensor]], Callable[..., torch.Tensor]]:
    """Declare the decorated function as the merging method of the same name; see `Method` for the arguments.

    `scale` is the default scaling coefficient; None declares a method that has none.
    """

    def register(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        name = function.__name__
        parameters = _parameters(function)
        if scale is not None:
            parameters[SCALE] = Parameter(SCALE, "number", scale)
        _METHODS[name] = Method(
            name=name,
            title=title,
            reference=reference,
            scope=scope,
            data=data,
            statistics=statistics,
            spectra=spectra,
            random=random,
            scaled=scale is not None,
            grid=dict(grid or {}),
            per_domain=dict(per_domain or {}),
            note=note,
            parameters=parameters,
            direction=function,
            total=total,
            kernel=kernel,
            total_kernel=total_kernel,
            tensor_total=tensor_total,
            tensor_total_kernel=tensor_total_kernel,
            solve=solve,
            through_thresholds=through_thresholds,
            propagation=propagation,
            control=control,
        )
        return function

    return register


def methods() -> dict[str, Method]:
    """Every method, by name, sorted."""
    _discover()
    return dict(sorted(_METHODS.items()))


def get(name: str) -> Method:
    """The method called `name`.

    Raises:
        MergebenchError: There is none; the nearest name is given.
    """
    known = methods()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise MergebenchError(f"There is no merging method {name!r}; there are {', '.join(known)}.{hint}")
    return known[name]


@functools.cache
def _discover() -> None:
    package = importlib.import_module("mergebench.merging.methods")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def _parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    keywords = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    # Annotations of the context and the result are not evaluated: they name torch, which is not imported for a declaration.
    hints = {p.name: eval(p.annotation, function.__globals__) if isinstance(p.annotation, str) else p.annotation for p in keywords}
    return {keyword.name: _parameter(keyword.name, hints[keyword.name], keyword.default) for keyword in keywords}


def _parameter(name: str, hint: Any, default: Any) -> Parameter:
    limits = None
    if typing.get_origin(hint) is Annotated:
        hint, *extras = typing.get_args(hint)
        limits = next((extra for extra in extras if isinstance(extra, Range)), None)
    if typing.get_origin(hint) is Literal:
        return Parameter(name, "choice", default, choices=typing.get_args(hint))
    kinds: dict[Any, str] = {
        float: "number",
        int: "integer",
        bool: "flag",
        str | None: "domain",
        float | dict[str, float]: "numbers",
    }
    return Parameter(name, kinds[hint], default, range=limits)
