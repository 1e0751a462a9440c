"""Recipes of ours: what they mean, and how what is wrong with them is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mergebench.errors import MergebenchError
from mergebench.merging.recipe import Instructions, MergeRecipe, read
from mergebench.merging.registry import methods

SPECIALISTS = {"math": "tuned/math", "coding": "/models/coding"}


def written(folder: Path, **changes: Any) -> Path:
    """A recipe file; None removes a key."""
    content = {"base": "base", "specialists": SPECIALISTS, "method": "ties", **changes}
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return path


def merged(folder: Path, **changes: Any) -> Instructions:
    return read(written(folder, **changes))


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    found = merged(tmp_path, statistics=["fisher.safetensors"], spectra={"math": "math.npz"})
    assert found.base == tmp_path / "base"
    assert found.specialists == {"math": tmp_path / "tuned/math", "coding": Path("/models/coding")}
    assert found.statistics == (tmp_path / "fisher.safetensors",)
    assert found.spectra == {"math": tmp_path / "math.npz"}


@pytest.mark.parametrize("method", sorted(methods()))
def test_every_method_can_be_asked_for_with_its_defaults(tmp_path: Path, method: str) -> None:
    (recipe,) = merged(tmp_path, method=method).merges.values()
    assert recipe.method == method
    assert recipe.parameters == methods()[method].validate()


def test_what_a_recipe_says_goes_over_its_preset(tmp_path: Path) -> None:
    found = merged(tmp_path, preset="released", parameters={"density": 0.3})
    (recipe,) = found.merges.values()
    assert recipe.parameters["aggregate"] == "sum"
    assert recipe.parameters["density"] == 0.3
    assert (found.scope, found.arithmetic) == ("released", "bfloat16")
    explicit = merged(tmp_path, preset="released", scope="all", arithmetic="float32")
    assert (explicit.scope, explicit.arithmetic) == ("all", "float32")


def test_a_seed_given_beside_the_recipe_replaces_its_own(tmp_path: Path) -> None:
    assert read(written(tmp_path, seed=3), seed=8).merges[""].seed == 8
    assert merged(tmp_path, seed=3).merges[""].seed == 3


def test_a_grid_is_the_product_of_its_values_with_the_scale_fastest(tmp_path: Path) -> None:
    found = merged(tmp_path, method="dare", grid={"scale": [0.5, 1], "density": [0.1, 0.2], "seed": [0, 1]})
    assert list(found.merges)[:3] == [
        "density-0.1_seed-0_scale-0.5",
        "density-0.1_seed-0_scale-1",
        "density-0.1_seed-1_scale-0.5",
    ]
    assert len(found.merges) == 8
    assert found.merges["density-0.2_seed-1_scale-0.5"].seed == 1
    assert found.merges["density-0.2_seed-1_scale-0.5"].parameters["density"] == 0.2


@pytest.mark.parametrize(("method", "count"), [("ties", 30), ("dare", 30), ("task_arithmetic", 10), ("consensus_ta", 10), ("regmean", 5)])
def test_the_paper_s_grid_goes_by_its_name(tmp_path: Path, method: str, count: int) -> None:
    assert len(merged(tmp_path, method=method, grid="paper").merges) == count


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, method="fisher")
    path.write_text(path.read_text() + "parameters: {floor: 1e-7}\n")
    assert read(path).merges[""].parameters["floor"] == 1e-7


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"spezialists": {}}, "spezialists is not a key of a recipe; did you mean 'specialists'"),
    ({"base": None}, "base is missing: folder of the base"),
    ({"specialists": {}}, "specialists is"),
    ({"specialists": {"a/b": "x"}}, "'a/b' is no name"),
    ({"method": "ties_merging"}, "no merging method 'ties_merging'"),
    ({"method": 3}, "method is 3"),
    ({"parameters": {"densty": 0.1}}, "no parameter 'densty'.*Did you mean 'density'"),
    ({"parameters": {"density": 1.5}}, "ties.density is 1.5"),
    ({"parameters": {"weights": {"math": 1.0, "codng": 1.0}}}, "'codng', which is no specialist; did you mean 'coding'"),
    ({"spectra": {"law": "x.npz"}}, "'law', which is no specialist"),
    ({"preset": "paperr"}, "no preset 'paperr'.*Did you mean 'paper'"),
    ({"preset": "mergekit", "method": "fisher"}, "preset mergekit has no fisher"),
    ({"vocabulary": "onion"}, "vocabulary is 'onion'"),
    ({"dtype": "int8"}, "dtype is 'int8'"),
    ({"seed": "one"}, "seed is 'one'"),
    ({"grid": {"density": []}}, "grid has 0 points"),
    ({"grid": {"thickness": [1]}}, "no parameter 'thickness'"),
    ({"grid": {"ties": ["all", "a b"]}}, "'a b'"),
    ({"grid": {"seed": [0.5]}}, "seed is 0.5"),
    ({"grid": {"scale": [step / 1000 for step in range(1, 1100)]}}, "at most 1000"),
    ({"method": "model_soup", "grid": "paper"}, "model_soup has no published grid"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MergebenchError, match=message) as caught:
        merged(tmp_path, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["- a list", "base: [", "3", "", "\0", "base: &a [*a"])
def test_what_is_no_recipe_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "recipe.yml"
    path.write_text(content)
    with pytest.raises(MergebenchError, match=r"recipe\.yml"):
        read(path)


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MergebenchError, match="Cannot read the recipe"):
        read(tmp_path / "none.yml")


def test_the_recipes_of_the_documentation_are_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[3] / "docs" / "command-line-merging.md"
    examples = re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    for name in re.findall(r"models/[\w.-]+", "".join(examples)):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path)
    found = []
    for place, text in enumerate(examples):
        (tmp_path / f"{place}.yml").write_text(text)
        found.append(read(tmp_path / f"{place}.yml"))
    assert [next(iter(each.merges.values())).method for each in found] == ["ties", "dare", "ties"]
    assert [len(each.merges) for each in found] == [1, 12, 1]
    assert "density-0.1_seed-0_scale-0.4" in found[1].merges


def test_the_documentation_names_every_key() -> None:
    page = (Path(__file__).parents[3] / "docs" / "command-line-merging.md").read_text()
    assert [key for key in MergeRecipe.model_fields if f"| `{key}` |" not in page] == []
