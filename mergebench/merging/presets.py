"""Named sets of behaviours, for where published sources disagree about what a method computes.

A preset is data: for each method the parameters, the parameter scope and the arithmetic that reproduce one source. What a recipe says
itself comes over it. `notes` name what the source does beyond arithmetic on given inputs, and what is therefore not reproduced.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mergebench.errors import MergebenchError
from mergebench.merging.scope import ALL, RELEASED

Arithmetic = Literal["float32", "bfloat16"]

PAPER = "paper"


@dataclass(frozen=True)
class Settings:
    """How one source computes one method.

    Attributes:
        parameters: The method's parameters (its scale among them) that differ from the defaults.
        scope: Which parameters of the model are merged, see `merging.scope`.
        arithmetic: Of task vectors, sums and the scaled direction: "float32", or "bfloat16" with a rounding after every operation.
        notes: What is not reproduced, and why.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    scope: str = ALL
    arithmetic: Arithmetic = "float32"
    notes: str = ""


@dataclass(frozen=True)
class Preset:
    """One source.

    Attributes:
        title: What it is.
        methods: method -> settings; None means every method with its defaults.
        notes: What holds for all methods.
    """

    title: str
    methods: Mapping[str, Settings] | None = None
    notes: str = ""


PRESETS: dict[str, Preset] = {
    PAPER: Preset("the published formulas"),
    "released": Preset(
        "the released MergeBench code (uiuctml/MergeBench, b245648), defects included",
        {
            "model_soup": Settings(
                scope=RELEASED, arithmetic="bfloat16", notes="The release has no soup; Table 7's is task_arithmetic at 1/n."
            ),
            "task_arithmetic": Settings(scope=RELEASED, arithmetic="bfloat16"),
            "fisher": Settings(
                {"normalise": False, "floor": 1e-10, "smoothing": "add"},
                scope=r"regex:^(?!model\.embed)",
                notes="What is averaged with; the release's estimate (argmax label of the last token, model still training) is not.",
            ),
            "regmean": Settings(
                {"precision": "bfloat16"},
                scope=RELEASED,
                notes="Gram matrices are those given: not the release's running mean in bfloat16, nor its pairing of models with other "
                "domains' data.",
            ),
            "ties": Settings({"aggregate": "sum", "ties": "all", "count": "above"}, scope=RELEASED, arithmetic="bfloat16"),
            "dare": Settings(scope=RELEASED, notes="The release draws its masks without a seed: they cannot be drawn again."),
            "consensus_ta": Settings({"thresholds": 0.2, "agreement": 2}, scope=RELEASED, arithmetic="bfloat16"),
            "dataless_localize_and_stitch": Settings(
                {"ties": "all", "count": "floor", "overlap": "last", "pollution": True}, scope=RELEASED
            ),
            "localize_and_stitch": Settings(
                {"overlap": "last", "pollution": True},
                scope=RELEASED,
                notes="Masks are those given: the release also fine-tunes the base that it stitches onto while it trains them.",
            ),
        },
        notes="A base with a tensor of zeros makes the release write shifted slices into all later tensors; that is not reproduced.",
    ),
    "mergekit": Preset(
        "mergekit 0.1.5 with dtype: float32",
        {
            "model_soup": Settings(notes="Its method linear."),
            "task_arithmetic": Settings({"scale": 1.0}),
            "ties": Settings(
                {
                    "density": 1.0,
                    "ties": "exact",
                    "threshold_scope": "tensor",
                    "count": "floor_or_one",
                    "zero_sign": "positive",
                    "scale": 1.0,
                },
                notes="Which of several entries equal to a threshold are kept depends on its sort; here, the first ones.",
            ),
            "dare": Settings(
                {"density": 1.0, "rescale": "l1", "scale": 1.0},
                notes="dare_linear; dare_ties is elect_signs: true. Its masks depend on the order in which it happens to merge tensors.",
            ),
        },
    ),
    "fusionbench": Preset(
        "FusionBench 0.2.33, language models",
        {
            "model_soup": Settings(),
            "task_arithmetic": Settings({"scale": 0.3}),
            "fisher": Settings(notes="What is averaged with; its estimate (the square of a batch's summed gradient) is not."),
            "regmean": Settings({"reduction": 0.6}),
            "ties": Settings(
                {"density": 0.2, "aggregate": "sum", "count": "above", "scale": 0.3},
                notes="A tied head is counted once here, twice there.",
            ),
            "dare": Settings(
                {"density": 0.5, "scale": 0.3}, notes="Its masks compare random numbers of 8 bits in bfloat16, without a seed."
            ),
        },
    ),
}


def settings(preset: str, method: str) -> Settings:
    """What `preset` says of `method`.

    Raises:
        MergebenchError: There is no such preset, or its source does not have the method.
    """
    if preset not in PRESETS:
        near = difflib.get_close_matches(preset, PRESETS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise MergebenchError(f"There is no preset {preset!r}; there are {', '.join(PRESETS)}.{hint}")
    known = PRESETS[preset].methods
    if known is None:
        return Settings()
    if method not in known:
        raise MergebenchError(f"The preset {preset} has no {method}: {PRESETS[preset].title} has {', '.join(known)}.")
    return known[method]


def parameters(preset: str, method: str, explicit: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The preset's parameters, and over them the explicit ones."""
    return {**settings(preset, method).parameters, **(explicit or {})}
