"""Losses of training: what is read, what is drawn, what is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mergebench.analysis.figures import draw
from mergebench.analysis.losses import read_losses
from mergebench.errors import MergebenchError
from tests.unit.analysis.synthetic import Campaign


def test_every_line_is_read_with_its_base_and_model(complete: Campaign) -> None:
    losses = read_losses(complete.inputs["losses"])
    assert set(losses["base"]) == set(complete.bases)
    assert "sft_math" in set(losses["model"])
    one = losses[(losses["base"] == complete.bases[1]) & (losses["model"] == "specialist_math")]
    assert list(one["step"]) == [10, 20, 30, 40, 50]
    assert np.all(np.diff(one["loss"]) < 0)


def test_every_trained_model_has_a_curve_and_grpo_none(complete: Campaign) -> None:
    evidence = complete.evidence()
    figure = draw("training", evidence)
    first, second = (axes for axes in figure.axes if axes.get_title("left") in complete.bases)
    assert len(first.lines) == len(second.lines) == len(evidence.scope.specialists) + 1
    before = evidence.losses
    grpo = before[before["model"] == "sft_math"].assign(model="specialist_math", loss=0.5)
    more = replace(evidence, losses=pd.concat([before, grpo]))
    again = next(axes for axes in draw("training", more).axes if axes.get_title("left") == complete.bases[0])
    assert len(again.lines) == len(first.lines)


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"step": 1}', '{"step": 1, "loss": null}', "half of a li"])
def test_a_line_that_training_does_not_write_is_named(tmp_path, line: str) -> None:
    path = tmp_path / "base/model/losses.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"step": 1, "loss": 2.0}\n' + line + "\n")
    with pytest.raises(MergebenchError, match=r"losses.jsonl, line 2: expected a JSON object with step and loss"):
        read_losses([path])
