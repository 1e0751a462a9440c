"""Declarations, their validation, and the text made from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mergebench.errors import MergebenchError
from mergebench.merging.declarations import declared
from mergebench.merging.listing import listing
from mergebench.merging.registry import get, methods

NINE = {
    "model_soup",
    "task_arithmetic",
    "fisher",
    "regmean",
    "ties",
    "dare",
    "consensus_ta",
    "dataless_localize_and_stitch",
    "localize_and_stitch",
}


def test_the_paper_s_methods_are_found() -> None:
    assert {name for name, method in methods().items() if not method.control} >= NINE
    assert list(methods()) == sorted(methods())


def test_a_file_holds_the_method_of_its_name() -> None:
    for name, method in methods().items():
        assert Path(method.direction.__code__.co_filename).stem == name


def test_the_workflow_reads_the_same_declarations() -> None:
    for name, method in methods().items():
        static = declared()[name]
        assert static.data == method.data
        assert static.statistics == method.statistics
        assert static.spectra == method.spectra
        assert static.calibration == (method.propagation is not None)
        assert static.random == method.random
        assert static.control == method.control
        assert set(static.parameters) == set(method.parameters)
        assert set(method.grid) <= set(static.grid_parameters)
    assert set(declared()) == set(methods())


def test_defaults_are_filled_in() -> None:
    values = get("ties").validate({"density": 1})
    assert values["density"] == 1.0
    assert (values["ties"], values["aggregate"], values["zero_sign"], values["scale"]) == ("all", "mean", "majority", 1.0)
    assert get("ties").split({"scale": 2}) == ({name: v for name, v in get("ties").validate().items() if name != "scale"}, 2.0)
    assert get("model_soup").split() == ({"weights": 1.0}, 1.0)


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("ties", {"densty": 0.2}, r"ties has no parameter 'densty'; it has density, .*Did you mean 'density'\?"),
        ("model_soup", {"scale": 0.2}, "model_soup has no parameter 'scale'; it has weights"),
        ("ties", {"density": 1.5}, r"ties\.density is 1\.5; expected a number, or one per domain in \[0, 1\]"),
        ("ties", {"density": "0.2"}, r"ties\.density is '0\.2'"),
        ("ties", {"density": True}, r"ties\.density is True"),
        ("ties", {"density": None}, r"ties\.density is None"),
        ("ties", {"scale": float("nan")}, r"ties\.scale is nan; expected a number"),
        ("ties", {"aggregate": "median"}, r"ties\.aggregate is 'median'; expected 'mean' or 'sum' or 'max'"),
        ("fisher", {"normalise": 1}, r"fisher\.normalise is 1; expected true or false"),
        ("consensus_ta", {"agreement": 2.5}, r"consensus_ta\.agreement is 2\.5; expected an integer"),
        ("consensus_ta", {"thresholds": {"math": -1}}, r"consensus_ta\.thresholds\.math is -1"),
        ("consensus_ta", {"only": 3}, r"consensus_ta\.only is 3; expected a domain"),
    ],
)
def test_a_wrong_parameter_is_named(method: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(MergebenchError, match=message):
        get(method).validate(parameters)


def test_an_unknown_method_gets_the_nearest_name() -> None:
    with pytest.raises(MergebenchError, match=r"no merging method 'tie'; .*Did you mean 'ties'\?"):
        get("tie")


def test_declarations_do_not_import_torch() -> None:
    code = "import sys; from mergebench.merging.listing import listing; listing(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_listing_names_everything() -> None:
    text = listing()
    for method in methods().values():
        assert f"{method.name}: {method.title}" in text
        assert method.reference.url in text
        for parameter in method.parameters:
            assert f"  {parameter}: " in text
