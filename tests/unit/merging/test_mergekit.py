"""mergekit's recipes in this engine's terms, and refused by name where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mergebench.errors import MergebenchError
from mergebench.merging.mergekit import Translation, read


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders in the current folder: what is in them is not read."""
    for name in ("base", "math", "coding", "other/math"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def translated(method: str, **changes: Any) -> Translation:
    models = [
        {"model": "base"},
        {"model": "math", "parameters": {"weight": 0.5, "density": 0.3}},
        {"model": "coding", "parameters": {"weight": "1e-1", "density": 1}},
    ]
    content = {"merge_method": method, "base_model": "base", "models": models, **changes}
    return read({key: value for key, value in content.items() if value is not None}, "recipe.yml")


def test_task_arithmetic() -> None:
    found = translated("task_arithmetic", parameters={"lambda": 0.7}, dtype="bfloat16")
    assert found.base == Path("base")
    assert found.specialists == {"math": Path("math"), "coding": Path("coding")}
    assert found.method == "task_arithmetic"
    assert found.parameters == {"weights": {"math": 0.5, "coding": 0.1}, "scale": 0.7, "normalise": False}
    assert found.dtype == "bfloat16"


def test_ties_divides_by_the_weights_unless_told_otherwise() -> None:
    assert translated("ties").parameters["aggregate"] == "mean"
    assert translated("ties").parameters["density"] == {"math": 0.3, "coding": 1.0}
    assert translated("ties", parameters={"normalize": False, "int8_mask": True}).parameters["aggregate"] == "sum"


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_is_rescaled_to_the_sum_of_magnitudes_unless_told_otherwise(method: str) -> None:
    found = translated(method)
    assert found.method == "dare"
    assert found.parameters["rescale"] == "l1"
    assert found.parameters["elect_signs"] is (method == "dare_ties")
    assert translated(method, parameters={"rescale": False}).parameters["rescale"] == "none"


def test_linear_takes_its_first_model_for_the_base() -> None:
    models = [{"model": name} for name in ("math", "coding", "other/math")]
    found = translated("linear", base_model=None, models=models, parameters={"weight": 2})
    assert found.base == Path("math")
    assert found.specialists == {"math": Path("math"), "coding": Path("coding"), "math#2": Path("other/math")}
    assert found.method == "model_soup"
    assert found.parameters == {"weights": {"math": 2.0, "coding": 2.0, "math#2": 2.0}}


def test_what_holds_for_all_is_overridden_by_one_model() -> None:
    models = [{"model": "math"}, {"model": "coding", "parameters": {"weight": 3.0}}]
    found = translated("task_arithmetic", models=models, parameters={"weight": 1.0, "density": 0.5})
    assert found.parameters["weights"] == {"math": 1.0, "coding": 3.0}


@pytest.mark.parametrize(
    ("dtype", "out_dtype", "expected"),
    [(None, None, "base"), ("float32", None, "float32"), ("float32", "bfloat16", "bfloat16"), (None, "fp16", "float16")],
)
def test_the_output_has_the_dtype_that_mergekit_would_write(dtype: str | None, out_dtype: str | None, expected: str) -> None:
    found = translated("ties", dtype=dtype, out_dtype=out_dtype)
    assert found.dtype == expected
    assert bool(found.notes) == (dtype != "float32")


@pytest.mark.parametrize("setting", [{"tokenizer_source": "base"}, {"tokenizer": {"source": "base"}}])
def test_the_base_s_tokenizer_drops_other_rows(setting: dict[str, Any]) -> None:
    assert translated("ties", **setting).vocabulary == "base"
    assert translated("ties").vocabulary == "refuse"


def test_a_chat_template_is_passed_on() -> None:
    assert translated("ties", chat_template="{{ messages }}").chat_template == "{{ messages }}"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"merge_method": "slerp"}, "method 'slerp' is not supported"),
    ({"merge_method": "tiess"}, "did you mean 'ties'"),
    ({"merge_method": None}, "method None is not supported"),
    ({"slices": []}, "slices .* not supported"),
    ({"modules": {}}, "modules .* not supported"),
    ({"name": "x"}, "'name' is not a key"),
    ({"base_model": None}, "ties needs base_model"),
    ({"base_model": "org/model"}, "'org/model', which is not a folder"),
    ({"base_model": "base+lora"}, r"path\+lora"),
    ({"base_model": "base@main"}, "path@revision"),
    ({"base_model": {"path": "base"}}, "is a map"),
    ({"models": None}, "models is None"),
    ({"models": [{"model": "base"}]}, "none besides the base"),
    ({"models": ["math"]}, "expected a map"),
    ({"models": [{"weight": 1}]}, "'weight' is not a key of a model"),
    ({"models": [{"parameters": {}}]}, "names no model"),
    ({"models": [{"model": "math"}]}, "math has no weight"),
    ({"models": [{"model": "math", "parameters": {"weight": [0, 1]}}]}, "a gradient"),
    ({"models": [{"model": "math", "parameters": {"weight": [{"filter": "mlp", "value": 1}]}}]}, "a filter"),
    ({"models": [{"model": "math", "parameters": {"weight": {"value": 1}}}]}, "a filter|a gradient"),
    ({"models": [{"model": "math", "parameters": {"weight": "much"}}]}, "'much'; expected a number"),
    ({"models": [{"model": "math", "parameters": {"weight": 1, "gamma": 1}}]}, "no parameter 'gamma'"),
    ({"parameters": {"lambda": "x"}}, "'x'; expected a number"),
    ({"parameters": {"normalize": 1}}, "expected true or false"),
    ({"parameters": {"rescale": True}}, "rescale: true is not supported for ties"),
    ({"parameters": {"epsilon": 0.1}}, "no parameter 'epsilon'"),
    ({"parameters": [1]}, "expected a map"),
    ({"dtype": "int4"}, "dtype is 'int4'"),
    ({"tokenizer_source": "union"}, "'union' is not supported"),
    ({"tokenizer": {"source": "base", "tokens": {}}}, "tokenizer.tokens"),
    ({"tokenizer": {"source": "base"}, "tokenizer_source": "base"}, "exclude each other"),
    ({"chat_template": "chatml"}, "'chatml' is not supported"),
    (
        {"merge_method": "linear", "parameters": {"normalize": False}, "models": [{"model": "math", "parameters": {"weight": 2}}]},
        "add up to 2",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_is_not_supported_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    content = {
        "merge_method": "ties",
        "base_model": "base",
        "models": [{"model": "math", "parameters": {"weight": 1, "density": 0.5}}],
        **changes,
    }
    with pytest.raises(MergebenchError, match=message) as caught:
        read(content, "recipe.yml")
    assert "recipe.yml" in str(caught.value)
    assert "\n" not in str(caught.value)
