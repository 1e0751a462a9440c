"""Training and calibration rows as token ids with a response-only loss mask."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError
from mergebench.training.encoding import Encoder

IGNORED = -100  # the label that torch's cross-entropy leaves out


@dataclass(frozen=True)
class Example:
    """One row: token ids, and labels that equal them on the response and are `IGNORED` on the prompt."""

    id: str
    input_ids: list[int]
    labels: list[int]

    @property
    def response_tokens(self) -> int:
        return sum(label != IGNORED for label in self.labels)


def read_rows(path: Path, required: Sequence[str]) -> list[dict[str, Any]]:
    """Read a JSONL file whose rows all have the `required` keys.

    Raises:
        MergebenchError: no rows, a line that is not JSON, or a missing key, with the line's number.
    """
    rows = []
    try:
        # Not splitlines: texts contain other line separators, such as U+2028.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise MergebenchError(f"{path} does not exist; the data step that writes it has not finished.") from None
    for number, line in enumerate(lines if lines != [""] else [], start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise MergebenchError(f"{path}, line {number}: not valid JSON ({error}); make the data again.") from None
        missing = [key for key in required if key not in row]
        if missing:
            raise MergebenchError(f"{path}, line {number}: keys {missing} are missing; found {sorted(row)}.")
        rows.append(row)
    if not rows:
        raise MergebenchError(f"{path} has no rows; at least one is needed.")
    return rows


def encode(tokenizer: Any, rows: Sequence[dict[str, Any]], max_length: int) -> list[Example]:
    """Tokenise ``{"id", "prompt", "response"}`` rows; the loss is on the response and what ends it (`encoding.Encoder`).

    Raises:
        MergebenchError: no row is left, or the tokenizer has no end-of-sequence token.
    """
    encoded = zip(rows, Encoder(tokenizer, max_length).encode(rows), strict=True)
    examples = [example(str(row["id"]), one.ids, one.prompt_length) for row, one in encoded if not isinstance(one, str)]
    if not examples:
        raise MergebenchError(f"all {len(rows)} rows have prompts of {max_length} or more tokens; raise max_length or check the data.")
    return examples


def example(identifier: str, ids: list[int], prompt_length: int) -> Example:
    """The example whose loss is on all but the first `prompt_length` of its tokens."""
    return Example(identifier, ids, [IGNORED] * prompt_length + ids[prompt_length:])


def collate(examples: Sequence[Example], pad_token_id: int) -> dict[str, Any]:
    """Right-padded ``input_ids``, ``attention_mask`` and ``labels``: int64 tensors of shape (rows, longest)."""
    import torch

    longest = max(len(example.input_ids) for example in examples)

    def pad(rows: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    return {
        "input_ids": pad([e.input_ids for e in examples], pad_token_id),
        "attention_mask": pad([[1] * len(e.input_ids) for e in examples], 0),
        "labels": pad([e.labels for e in examples], IGNORED),
    }
