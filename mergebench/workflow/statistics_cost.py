"""What a calibration statistic costs, by kind: arithmetic, bytes moved, memory by part, bytes on disk.

Everything follows from the number of parameters and of tokens and from the shares below, which are upper bounds over the catalogue's bases.
`estimates` turns it into seconds; `benchmarks/statistics.py` compares it with what is measured.
"""

import math
from dataclasses import dataclass
from typing import Any

from mergebench.merging.statistics.settings import FisherSettings, GramSettings, MaskSettings, RegmeanPlusPlusSettings

GB = 10**9
LARGEST = 0.25  # share of the parameters in the largest tensor (Gemma-2-2b's embedding: 0.23)
LAYER = 0.031  # share in one layer (Llama-3.2-3B: 0.031, Gemma-2-9b: 0.021)
GRAM = 1.1  # entries of all Gram matrices by parameter (Gemma-2-9b: 1.12, Llama-3.2-3B: 0.83)
HIDDEN, LAYERS = 4096, 42  # width of hidden states (Llama-3.1-8B), and layers (Gemma-2-9b)
SMALL_HIDDEN, SMALL_LAYERS = 128, 4  # of the tiny twins
RESPONSE = 0.5  # share of a row's tokens in its response
ACTIVATIONS = 8 * GB  # of the longest rows, layers recomputed: scores of 4096 x 4096 tokens and 16 heads, logits of 1024 tokens
ROOM = 36 * GB  # half of what an 80 GB GPU gives to a job: what the sums of a pass over the rows take at most, with the model


@dataclass(frozen=True)
class Cost:
    """The cost of measuring one kind on one specialist.

    Attributes:
        flops: Floating-point operations.
        half: Whether they are in bfloat16.
        streamed: Bytes read from and written to files.
        copied: Bytes copied between host and GPU.
        device: Memory on the device by part, in bytes; what lies on the host where it does not fit is not among it.
        host: The same on the host, beside a process that has imported torch. On a machine without a GPU both are one memory.
        written: Bytes of the result.
        working: Further bytes on disk, at most, while the job runs.
    """

    flops: float
    half: bool
    streamed: float
    copied: float
    device: dict[str, float]
    host: dict[str, float]
    written: float
    working: float


def cost(settings: Any, parameters: int, stored: int, rows: int, tokens: int, *, small: bool = False) -> Cost:
    """The cost of the kind that these settings are of.

    Args:
        settings: `FisherSettings`, `GramSettings` or `MaskSettings`.
        parameters: Of the model.
        stored: Bytes of one in the model's files.
        rows: Calibration rows.
        tokens: Of a row, on average.
        small: Whether it is a tiny twin: nothing is recomputed, and everything fits at once.
    """
    if isinstance(settings, FisherSettings):
        return _fisher(settings, parameters, rows, tokens, small)
    if isinstance(settings, GramSettings):
        return _gram(settings, parameters, rows, tokens, small)
    return _mask(settings, parameters, stored, tokens, small)


def fisher_passes(settings: FisherSettings, parameters: int, room: float = ROOM) -> int:
    """Passes over the rows, each for as many tensors as the room that the model leaves holds float32 sums of."""
    left = max(room - _item(settings.dtype) * parameters / 2, 4 * LAYER * parameters)
    return math.ceil(4 * parameters / left)


def _fisher(settings: FisherSettings, parameters: int, rows: int, tokens: int, small: bool) -> Cost:
    item = _item(settings.dtype)
    passes = 1 if small else fisher_passes(settings, parameters)
    gradients = settings.k * RESPONSE * tokens if settings.labels == "topk" else 1  # backward passes of a row
    again = 0 if small else 2
    group = 4 * parameters / passes
    return Cost(
        flops=parameters * rows * tokens * (passes * (2 + gradients * (2 + again)) + 2 * gradients),
        half=item == 2,
        streamed=(2 + 4 + 4 + 4) * parameters,  # weights; parts written, read and joined
        copied=2 * group,
        device={"model": item * parameters, "gradient of a tensor": (item + 4) * LARGEST * parameters, "activations": ACTIVATIONS},
        host={"model as it is loaded": item * parameters, "sums of a group": group},
        written=4.0 * parameters,
        working=4.0 * parameters + 2 * group,
    )


def propagation(settings: RegmeanPlusPlusSettings, parameters: int, domains: int, rows: int, tokens: int, *, small: bool = False) -> Cost:
    """The cost of one direction of RegMean++, beside that of reading and writing models: of every domain, all is measured as Gram matrices
    are, and passed on once more.

    Args:
        settings: Those of the samples.
        parameters: Of the model.
        domains: Number of specialists.
        rows: Calibration rows of each.
        tokens: Of a row, on average.
        small: Whether it is a tiny twin.
    """
    one = _gram(settings, parameters, rows, tokens, small)
    hidden, layers = (SMALL_HIDDEN, SMALL_LAYERS) if small else (HIDDEN, LAYERS)
    states = domains * rows * tokens * hidden * _item(settings.dtype)
    layer = GRAM * LAYER * parameters
    solving = (2 * domains + 2) * parameters * 2 * hidden  # products with each matrix, and substitution; twice as wide on average
    return Cost(
        flops=domains * (one.flops + 2 * parameters * rows * tokens) + solving,
        half=False,
        streamed=3 * layers * states + 2 * 4 * parameters,
        copied=3 * layers * states + 4 * (2 * domains + 2) * parameters,
        device={**one.device, "matrices of a layer": 4 * domains * layer, "equations of a layer": 3 * 8 * layer},
        host={"directions of a stage": 2 * 4 * LARGEST * parameters},
        written=0.0,
        working=4 * parameters + 2 * states,
    )


def _gram(settings: GramSettings | RegmeanPlusPlusSettings, parameters: int, rows: int, tokens: int, small: bool) -> Cost:
    item, width = _item(settings.dtype), 8 if settings.accumulate == "float64" else 4
    hidden, layers = (SMALL_HIDDEN, SMALL_LAYERS) if small else (HIDDEN, LAYERS)
    states = rows * tokens * hidden * item
    sums = width * GRAM * LAYER * parameters
    return Cost(
        flops=parameters * rows * tokens * (2 + 1.2 * GRAM),  # only products on and above the diagonal
        half=False,  # the products are in float32 whatever the forward pass is in
        streamed=2 * layers * states + (4 + 3 * 4 * GRAM) * parameters,
        copied=2 * layers * states + 4 * parameters,
        device={"weights of a layer": LARGEST * item * parameters, "sums of a layer": 1.5 * sums, "activations": ACTIVATIONS},
        host={"weights of a layer": LARGEST * item * parameters, "sums of a layer": 2 * sums},
        written=4 * GRAM * parameters,
        working=4 * GRAM * parameters + 2 * states + 2 * sums,
    )


def _mask(settings: MaskSettings, parameters: int, stored: int, tokens: int, small: bool) -> Cost:
    item = 4 if settings.model_dtype == "float32" else stored
    logits = _item(settings.dtype)
    pieces = settings.micro_batch_size is not None and settings.micro_batch_size < settings.batch_size
    passes = settings.steps + 1  # the first batch once more, for the scale of its gradient
    return Cost(
        flops=(6 if small else 8) * parameters * passes * settings.batch_size * tokens,
        half=item == 2,
        streamed=(4 * stored + 2) * parameters,  # the spectrum, and the first parameters; the mask written, read and joined
        copied=passes * (2 * stored + 2 * logits) * parameters,
        device={
            "model": item * parameters,
            "sums of gradients": (4.0 if pieces else 0.0) * parameters,
            "gradient of a tensor": item * LARGEST * parameters,
            "activations": ACTIVATIONS,
        },
        host={"logits": logits * parameters, "base and specialist, mapped from files": 2 * stored * parameters},
        written=parameters / 8,
        working=(1 + 2 * logits) * parameters,
    )


def _item(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else 4
