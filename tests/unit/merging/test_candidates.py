"""Grids: how many candidates, in which order, and which directions they share."""

from __future__ import annotations

import pytest

from mergebench.errors import MergebenchError
from mergebench.merging.candidates import Candidate, candidates, choose
from mergebench.merging.registry import get
from tests.reference.pico import DOMAINS


@pytest.mark.parametrize(
    ("method", "count", "directions"),
    [
        ("model_soup", 0, 0),
        ("task_arithmetic", 10, 1),
        ("fisher", 0, 0),
        ("regmean", 5, 5),
        ("ties", 30, 3),
        ("dare", 30, 3),
        ("consensus_ta", 35, 26),
        ("dataless_localize_and_stitch", 5, 5),
        ("localize_and_stitch", 0, 0),
    ],
)
def test_the_paper_s_grids_have_the_counts_of_table_6(method: str, count: int, directions: int) -> None:
    found = candidates(method, get(method).grid, DOMAINS)
    assert len(found) == count
    assert len({repr(candidate.parameters) for candidate in found}) == directions


def test_candidates_that_share_a_direction_are_neighbours() -> None:
    found = candidates("ties", {"scale": [0.5, 1.0], "density": [0.1, 0.2]}, DOMAINS, {"aggregate": "sum"})
    assert [candidate.recipe for candidate in found] == [
        {"aggregate": "sum", "density": density, "scale": scale} for density in (0.1, 0.2) for scale in (0.5, 1.0)
    ]
    assert all(candidate.domains == DOMAINS for candidate in found)


def test_thresholds_are_tuned_first_each_on_its_own_domain() -> None:
    found = candidates("consensus_ta", {"threshold": [0.2, 0.4], "scale": [0.3]}, ["math", "safety"], {"agreement": 1})
    assert [(c.stage, c.parameters, c.scale, c.domains) for c in found] == [
        *(
            ("domain", {"agreement": 1, "thresholds": {domain: value}, "only": domain}, 1.0, (domain,))
            for domain in ("math", "safety")
            for value in (0.2, 0.4)
        ),
        ("grid", {"agreement": 1}, 0.3, ("math", "safety")),
    ]
    chosen = choose([(found[0], 0.1), (found[1], 0.3), (found[2], 0.5), (found[3], 0.5)])
    assert chosen == {"thresholds": {"math": 0.4, "safety": 0.2}}
    assert found[4].given(chosen).recipe == {"agreement": 1, "thresholds": {"math": 0.4, "safety": 0.2}, "scale": 0.3}
    assert get("consensus_ta").validate(found[4].given(chosen).recipe)["thresholds"]["math"] == 0.4


def test_a_fixed_scale_is_used() -> None:
    found = candidates("ties", {"density": [0.1]}, DOMAINS, {"scale": 2.0})
    assert [(candidate.parameters, candidate.scale) for candidate in found] == [({"density": 0.1}, 2.0)]


def test_a_method_without_a_scale_has_none_in_its_recipe() -> None:
    assert Candidate("regmean", "grid", {"reduction": 0.5}, 1.0, DOMAINS).recipe == {"reduction": 0.5}


@pytest.mark.parametrize(
    ("method", "grid", "message"),
    [
        ("model_soup", {"scale": [0.1]}, "model_soup has no parameter 'scale'"),
        ("ties", {"density": [0.1, 2.0]}, r"ties\.density is 2\.0"),
        ("ties", {"density": []}, "no value for 'density'"),
        ("consensus_ta", {"threshold": [-1]}, r"consensus_ta\.thresholds is -1"),
    ],
)
def test_a_wrong_grid_is_refused(method: str, grid: dict, message: str) -> None:
    with pytest.raises(MergebenchError, match=message):
        candidates(method, grid, DOMAINS)
