"""mergekit's recipes (version 0.1.5): which of them the engine carries out, and as what.

Supported are linear, task_arithmetic, ties, dare_linear and dare_ties over whole models, with their parameters. What is not supported
is refused by name: a merge that silently left out half of its recipe would be worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergebench.checkpoints.layout import Dtype
from mergebench.checkpoints.vocabulary import Vocabulary
from mergebench.errors import MergebenchError, nearest

# Parameters of each method: those of one model, and those of the whole merge.
_GENERAL = ({"weight", "density"}, {"normalize", "rescale", "int8_mask", "lambda"})
METHODS: dict[str, tuple[set[str], set[str]]] = {
    "linear": ({"weight"}, {"normalize"}),
    **dict.fromkeys(("task_arithmetic", "ties", "dare_linear", "dare_ties"), _GENERAL),
}
RESCALED = ("dare_linear", "dare_ties")

KEYS = ("merge_method", "base_model", "models", "parameters", "dtype", "out_dtype", "tokenizer_source", "tokenizer", "chat_template")
REFUSED = {
    "slices": "merges of layer ranges",
    "modules": "merges of single modules",
}
DTYPES: dict[str, Dtype] = {
    name: dtype
    for dtype in ("float32", "bfloat16", "float16")
    for name in (dtype, {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[dtype])
}


@dataclass(frozen=True)
class Translation:
    """A mergekit recipe in this engine's terms.

    Attributes:
        base, specialists: Folders; specialists by the names of their folders.
        method, parameters: One of this engine's methods, and what differs from the preset mergekit.
        dtype: Of the output.
        vocabulary: What happens to embedding rows that the base lacks.
        chat_template: A Jinja template, or None.
        notes: Where the result differs from mergekit's, one sentence each.
    """

    base: Path
    specialists: dict[str, Path]
    method: str
    parameters: dict[str, Any]
    dtype: Dtype
    vocabulary: Vocabulary
    chat_template: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """One entry of `models`: its folder, and its parameters with those of the whole merge under them."""

    path: str
    parameters: Mapping[str, Any]


def read(raw: Mapping[str, Any], where: str) -> Translation:
    """Translate a mergekit recipe.

    Args:
        raw: Its content.
        where: Its name, for messages. Paths in it are relative to the current folder, as for mergekit.

    Raises:
        MergebenchError: It is wrong, or asks for what is not supported.
    """
    for key in raw:
        if key in REFUSED:
            raise MergebenchError(f"{where}: {key} ({REFUSED[key]}) of mergekit is not supported; list whole models under models.")
        if key not in KEYS:
            raise MergebenchError(f"{where}: {key!r} is not a key that is supported of mergekit's recipes; {nearest(str(key), [*KEYS])}.")
    method = raw["merge_method"]
    if method not in METHODS:
        raise MergebenchError(f"{where}: mergekit's method {method!r} is not supported; {nearest(str(method), list(METHODS))}.")
    shared = _map(raw.get("parameters"), f"{where}: parameters")
    _check(shared, set.union(*METHODS[method]), f"{where}: parameters", method)
    sources = [_source(entry, shared, method, f"{where}: models[{place}]") for place, entry in enumerate(_models(raw, where))]
    base = _reference(raw["base_model"], f"{where}: base_model") if raw.get("base_model") is not None else None
    if base is None and method != "linear":
        raise MergebenchError(f"{where}: {method} needs base_model, the model that the others are fine-tunes of.")
    translate = _linear if method == "linear" else _task_vectors
    chosen = sources if method == "linear" else [source for source in sources if source.path != base]
    if not chosen:
        raise MergebenchError(f"{where}: models has none besides the base; a merge needs at least one fine-tune.")
    specialists = dict(zip(_names([source.path for source in chosen]), chosen, strict=True))
    return Translation(
        base=Path(base or sources[0].path),
        specialists={name: Path(source.path) for name, source in specialists.items()},
        method={"linear": "model_soup", "dare_linear": "dare", "dare_ties": "dare"}.get(method, method),
        parameters=translate(method, specialists, shared, where),
        dtype=_dtype(raw, where),
        vocabulary=_vocabulary(raw, base, where),
        chat_template=_chat_template(raw.get("chat_template"), where),
        notes=tuple(_notes(raw)),
    )


def _models(raw: Mapping[str, Any], where: str) -> list[Any]:
    models = raw.get("models")
    if not isinstance(models, list) or not models:
        raise MergebenchError(f"{where}: models is {models!r}; expected a list of models.")
    return models


def _source(entry: Any, shared: Mapping[str, Any], method: str, where: str) -> _Source:
    found = _map(entry, where)
    for key in found:
        if key not in ("model", "parameters"):
            raise MergebenchError(f"{where}: {key!r} is not a key of a model; {nearest(str(key), ['model', 'parameters'])}.")
    if "model" not in found:
        raise MergebenchError(f"{where} names no model; expected `model: FOLDER`.")
    own = _map(found.get("parameters"), f"{where}.parameters")
    _check(own, METHODS[method][0], f"{where}.parameters", method)
    return _Source(_reference(found["model"], f"{where}.model"), {**shared, **own})


def _check(given: Mapping[str, Any], known: set[str], where: str, method: str) -> None:
    for name, value in given.items():
        if name not in known:
            raise MergebenchError(f"{where}: {method} has no parameter {name!r} that is supported here; {nearest(name, sorted(known))}.")
        if isinstance(value, (list, dict)):
            what = "a filter" if any(isinstance(part, dict) for part in [value, *value]) else "a gradient along the layers"
            raise MergebenchError(f"{where}.{name} is {what}, which is not supported; give one number.")


def _linear(method: str, specialists: Mapping[str, _Source], shared: Mapping[str, Any], where: str) -> dict[str, Any]:
    weights = _weights(specialists, where)
    total = sum(weights.values())
    if not _flag(shared, "normalize", True, where) and abs(total - 1) > 1e-6:
        raise MergebenchError(
            f"{where}: linear with normalize: false and weights that add up to {total:g} shrinks or grows the whole model, which is "
            "not supported; give weights that add up to 1."
        )
    return {"weights": weights}


def _task_vectors(method: str, specialists: Mapping[str, _Source], shared: Mapping[str, Any], where: str) -> dict[str, Any]:
    weights = _weights(specialists, where)
    normalise = _flag(shared, "normalize", method == "ties", where)
    rescale = _flag(shared, "rescale", method in RESCALED, where)
    _flag(shared, "int8_mask", False, where)  # the type of a mask, which has no bearing on the result
    parameters = {"weights": weights, "scale": _number(shared.get("lambda", 1.0), f"{where}: parameters.lambda")}
    if rescale and method not in RESCALED:
        raise MergebenchError(f"{where}: rescale: true is not supported for {method}; it is for {' and '.join(RESCALED)}.")
    if method == "task_arithmetic":
        return parameters | {"normalise": normalise}
    density = {name: _number(source.parameters.get("density", 1.0), f"{where}: density of {name}") for name, source in specialists.items()}
    parameters["density"] = {name: min(value, 1.0) for name, value in density.items()}  # mergekit keeps all from 1 on
    if method == "ties":
        return parameters | {"aggregate": "mean" if normalise else "sum"}
    return parameters | {"rescale": "l1" if rescale else "none", "normalise": normalise, "elect_signs": method == "dare_ties"}


def _weights(specialists: Mapping[str, _Source], where: str) -> dict[str, float]:
    for name, source in specialists.items():
        if "weight" not in source.parameters:
            raise MergebenchError(f"{where}: {name} has no weight; give it one, or one for all under parameters.")
    return {name: _number(source.parameters["weight"], f"{where}: weight of {name}") for name, source in specialists.items()}


def _vocabulary(raw: Mapping[str, Any], base: str | None, where: str) -> Vocabulary:
    """The base's tokenizer drops rows beyond its own; without a tokenizer setting mergekit refuses them."""
    source = raw.get("tokenizer_source")
    tokenizer = _map(raw.get("tokenizer"), f"{where}: tokenizer")
    for key in tokenizer:
        if key != "source":
            raise MergebenchError(f"{where}: tokenizer.{key} of mergekit is not supported; tokenizer.source: base is.")
    if source is not None and tokenizer:
        raise MergebenchError(f"{where}: tokenizer_source and tokenizer exclude each other; keep one.")
    source = tokenizer.get("source", source)
    if source is None:
        return "refuse"
    if source not in ("base", base):
        raise MergebenchError(f"{where}: the tokenizer source {source!r} is not supported; base is.")
    return "base"


def _chat_template(template: Any, where: str) -> str | None:
    if template is None:
        return None
    if not isinstance(template, str) or "{" not in template:
        raise MergebenchError(f"{where}: chat_template {template!r} is not supported; give the text of a Jinja template, or leave it out.")
    return template


def _dtype(raw: Mapping[str, Any], where: str) -> Dtype:
    found: Dtype = "base"
    for key in ("dtype", "out_dtype"):  # mergekit computes in the one and writes the other
        if raw.get(key) is None:
            continue
        if raw[key] not in DTYPES:
            raise MergebenchError(f"{where}: {key} is {raw[key]!r}; {nearest(str(raw[key]), list(DTYPES))}.")
        found = DTYPES[raw[key]]
    return found


def _notes(raw: Mapping[str, Any]) -> list[str]:
    if DTYPES.get(raw.get("dtype") or "") == "float32":
        return []
    return ["mergekit computes this recipe in 16 bits where the models have them; this result is computed in float32 and rounded once."]


def _reference(value: Any, where: str) -> str:
    """A model's folder."""
    if isinstance(value, Mapping):
        raise MergebenchError(f"{where} is a map; of mergekit's ways to name a model, a path is supported.")
    path = str(value)
    if "+" in path and not Path(path).exists():
        raise MergebenchError(f"{where} is {path!r}: an adapter on a model (path+lora) is not supported; fold it into the model first.")
    if re.search(r"@[^/]*$", path) and not Path(path).exists():
        raise MergebenchError(f"{where} is {path!r}: revisions (path@revision) are not supported; fetch that revision into a folder.")
    if not Path(path).expanduser().is_dir():
        raise MergebenchError(f"{where} is {path!r}, which is not a folder; fetch the model first (hf download) and name its folder.")
    return str(Path(path).expanduser())


def _names(paths: list[str]) -> list[str]:
    """A name for each model: its folder's, with a number where two are alike."""
    names: list[str] = []
    for path in paths:
        name = Path(path).resolve().name
        alike = sum(name == other or other.startswith(f"{name}#") for other in names)
        names.append(f"{name}#{alike + 1}" if alike else name)
    return names


def _map(value: Any, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise MergebenchError(f"{where} is {value!r}; expected a map.")
    return value


def _number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise MergebenchError(f"{where} is {value!r}; expected a number.") from None


def _flag(given: Mapping[str, Any], name: str, default: bool, where: str) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise MergebenchError(f"{where}: parameters.{name} is {value!r}; expected true or false.")
    return value
