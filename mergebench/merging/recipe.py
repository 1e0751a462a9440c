"""Recipes: the files that `mergebench merge` reads, ours and mergekit's, as instructions for the engine."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mergebench.checkpoints.layout import Dtype
from mergebench.checkpoints.vocabulary import Vocabulary
from mergebench.errors import MergebenchError, nearest
from mergebench.merging import mergekit
from mergebench.merging.plan import Recipe
from mergebench.merging.presets import PAPER, Arithmetic, settings
from mergebench.merging.registry import SCALE, Method, get

SEED = "seed"

# Outputs of one grid: more than this is a mistake in the recipe, or a search that should not write checkpoints.
MOST_OUTPUTS = 1000

Value = float | int | bool | str


@dataclass(frozen=True)
class Instructions:
    """One or several merges of the same models, with all that decides their bytes.

    Attributes:
        base: The base's folder.
        specialists: Domain -> folder.
        merges: Name of the output's folder -> recipe; the name is empty where there is one output.
        scope, vocabulary, dtype, arithmetic: As in `engine.merge_many` and `Models.open`.
        statistics: Files of statistics.
        spectra: Domain -> file of a spectrum.
        chat_template: A Jinja template for the merged model's tokenizer; None keeps the base's.
        notes: What a reader of the result should know, one sentence each.
        asked: The recipe as it was written.
    """

    base: Path
    specialists: dict[str, Path]
    merges: dict[str, Recipe]
    scope: str
    vocabulary: Vocabulary = "refuse"
    dtype: Dtype = "base"
    arithmetic: Arithmetic = "float32"
    statistics: tuple[Path, ...] = ()
    spectra: Mapping[str, Path] = field(default_factory=dict)
    chat_template: str | None = None
    notes: tuple[str, ...] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)


class MergeRecipe(BaseModel):
    """A recipe of ours. Paths are relative to the recipe's folder."""

    model_config = ConfigDict(extra="forbid", strict=True)

    base: str = Field(description="folder of the base")
    specialists: dict[str, str] = Field(description="name -> folder of a fine-tune of the base", min_length=1)
    method: str = Field(description="as `mergebench methods` lists it")
    parameters: dict[str, Any] = Field({}, description="of the method, its scale among them; the preset's where absent")
    preset: str = Field(PAPER, description="whose definition of the method: paper, released, mergekit, fusionbench")
    scope: str | None = Field(
        None, description="which parameters are merged: all, no-embeddings, backbone, regex:PATTERN; null: the preset's"
    )
    arithmetic: Arithmetic | None = Field(None, description="float32, or bfloat16 as some released code; null: the preset's")
    vocabulary: Vocabulary = Field("refuse", description="embedding rows that not all have: refuse, base, truncate, union")
    dtype: Dtype = Field("base", description="of the output; base: the base's")
    seed: int = Field(0, description="of methods that draw random numbers")
    grid: dict[str, list[Value]] | Literal["paper"] | None = Field(
        None, description="parameter (or seed) -> values, one output each from one pass; paper: the method's published grid"
    )
    statistics: list[str] = Field([], description="statistics.safetensors files, for methods that need them")
    spectra: dict[str, str] = Field({}, description="name -> spectrum.npz measured before; absent ones are measured")


def read(path: Path, *, seed: int | None = None) -> Instructions:
    """Read a recipe, ours or mergekit's.

    Args:
        path: The file.
        seed: Instead of the recipe's.

    Raises:
        MergebenchError: The file is not a recipe, asks for what does not exist, or asks mergekit for what is not supported.
    """
    raw = _load(path)
    if "merge_method" in raw:
        return _from_mergekit(mergekit.read(raw, str(path)), raw, seed)
    if seed is not None:
        raw = {**raw, SEED: seed}
    try:
        recipe = MergeRecipe.model_validate(_numbers(raw))
    except ValidationError as error:
        raise MergebenchError(f"{path}: {_explain(error)}") from None
    return _instructions(recipe, raw, path.parent)


def _load(path: Path) -> dict[str, Any]:
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MergebenchError(f"Cannot read the recipe {path}: {error.strerror or error}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise MergebenchError(f"The recipe {path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(raw, dict):
        raise MergebenchError(f"The recipe {path} holds {type(raw).__name__} where a map with base, specialists and method was expected.")
    return raw


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads ``1e-5`` as text; such text becomes the number that its writer meant."""
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value


def _explain(error: ValidationError) -> str:
    """The first problem of a validation as one sentence."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"] if part != "dict[str,list[union[float,int,bool,str]]]") or "the recipe"
    if problem["type"] == "extra_forbidden":
        return f"{where} is not a key of a recipe; {nearest(where, list(MergeRecipe.model_fields))}."
    if problem["type"] == "missing":
        return f"{where} is missing: {MergeRecipe.model_fields[where].description}."
    found = repr(problem["input"])
    found = found if len(found) <= 80 else f"{found[:77]}..."
    return f"{where} is {found}; {problem['msg'][0].lower()}{problem['msg'][1:]}."


def _instructions(recipe: MergeRecipe, raw: Mapping[str, Any], folder: Path) -> Instructions:
    method = get(recipe.method)
    preset = settings(recipe.preset, recipe.method)
    _check_names(recipe)
    return Instructions(
        base=_path(folder, recipe.base),
        specialists={name: _path(folder, place) for name, place in recipe.specialists.items()},
        merges=_merges(recipe, method, {**preset.parameters, **recipe.parameters}),
        scope=recipe.scope or preset.scope,
        vocabulary=recipe.vocabulary,
        dtype=recipe.dtype,
        arithmetic=recipe.arithmetic or preset.arithmetic,
        statistics=tuple(_path(folder, place) for place in recipe.statistics),
        spectra={name: _path(folder, place) for name, place in recipe.spectra.items()},
        notes=(preset.notes,) if preset.notes else (),
        asked=raw,
    )


def _path(folder: Path, place: str) -> Path:
    return folder / Path(place).expanduser()


def _check_names(recipe: MergeRecipe) -> None:
    """Refuse names that cannot name files, and maps that name a specialist that there is not, which would silently have no effect."""
    for name in recipe.specialists:
        if not re.fullmatch(r"[\w.+#-]+", name):
            raise MergebenchError(f"specialists: {name!r} is no name; use letters, digits, '.', '-' and '_'.")
    maps = {f"parameters.{name}": value for name, value in recipe.parameters.items() if isinstance(value, dict)}
    for key, names in {**maps, "spectra": recipe.spectra}.items():
        for name in names:
            if name not in recipe.specialists:
                raise MergebenchError(
                    f"{key} has a value for {name!r}, which is no specialist; {nearest(str(name), list(recipe.specialists))}."
                )


def _merges(recipe: MergeRecipe, method: Method, parameters: dict[str, Any]) -> dict[str, Recipe]:
    """The recipes of a grid, by the name of their output; the scale varies fastest."""
    if recipe.grid is None:
        return {"": Recipe(method.name, method.validate(parameters), recipe.seed)}
    axes = _paper_grid(method) if recipe.grid == "paper" else recipe.grid
    names = sorted(axes, key=lambda name: name == SCALE)
    merges: dict[str, Recipe] = {}
    for values in itertools.product(*(axes[name] for name in names)):
        point = dict(zip(names, values, strict=True))
        slug = "_".join(f"{name}-{value}" for name, value in point.items()).lower()
        if not re.fullmatch(r"[a-z0-9._-]+", slug):
            raise MergebenchError(f"The grid asks for {point}, which cannot name a folder; use numbers and words of letters in grids.")
        seed = point.pop(SEED, recipe.seed)
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise MergebenchError(f"The grid's {SEED} is {seed!r}; expected an integer.")
        merges[slug] = Recipe(method.name, method.validate({**parameters, **point}), seed)
    if not 1 <= len(merges) <= MOST_OUTPUTS:
        raise MergebenchError(
            f"The grid has {len(merges)} points; give each of its parameters a value, and at most {MOST_OUTPUTS} points in all."
        )
    return merges


def _paper_grid(method: Method) -> dict[str, list[Value]]:
    axes: dict[str, list[Value]] = {name: [*values] for name, values in method.grid.items() if name not in method.per_domain}
    if not axes:
        raise MergebenchError(f"{method.name} has no published grid; leave grid out, or name its parameters.")
    return axes


def _from_mergekit(found: mergekit.Translation, raw: Mapping[str, Any], seed: int | None) -> Instructions:
    method = get(found.method)
    preset = settings("mergekit", found.method)
    return Instructions(
        base=found.base,
        specialists=found.specialists,
        merges={"": Recipe(found.method, method.validate({**preset.parameters, **found.parameters}), seed or 0)},
        scope=preset.scope,
        vocabulary=found.vocabulary,
        dtype=found.dtype,
        chat_template=found.chat_template,
        notes=tuple(note for note in (preset.notes, *found.notes) if note),
        asked=raw,
    )
