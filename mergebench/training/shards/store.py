"""Read tokenised training sets: mapped into memory, so that opening one takes milliseconds whatever its size."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from mergebench.artifacts import read_json
from mergebench.errors import MergebenchError
from mergebench.training.examples import Example, example
from mergebench.training.shards.files import PARTS, part
from mergebench.training.shards.identity import tokenizer_sha256


class Tokens(Sequence[Example]):
    """The rows of one training set for one tokenizer, template and length.

    Attributes:
        facts: the manifest: ``template``, ``tokenizer_sha256``, ``max_length``, ``rows``, ``tokens``, ...
        prompt_lengths: int64 (rows,), tokens of each row that have no loss.
        lengths: int64 (rows,), tokens of each row.
    """

    def __init__(self, manifest: Path) -> None:
        self.path = manifest
        self.facts: dict[str, Any] = read_json(manifest)
        if self.facts.get("stage") != "tokenise":
            raise MergebenchError(f"{manifest} is of the stage {self.facts.get('stage')!r}; expected the tokens that `tokenise` makes.")
        folder = manifest.parent / "shards"
        self._shards = [self._open(folder, number) for number in range(len(self.facts["shards"]))]
        self._starts = np.concatenate(([0], np.cumsum([len(shard["prompts"]) for shard in self._shards], dtype=np.int64)))
        if self._starts[-1] != self.facts["rows"]:
            raise MergebenchError(
                f"{folder} holds {self._starts[-1]} rows, {manifest.name} says {self.facts['rows']}; make the tokens again."
            )

    def _open(self, folder: Path, number: int) -> dict[str, np.ndarray]:
        try:
            return {name: np.load(part(folder, name, number), mmap_mode="r", allow_pickle=False) for name in PARTS}
        except (OSError, ValueError) as error:
            raise MergebenchError(f"shard {number} in {folder} cannot be read ({error}); make the tokens again.") from error

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.concatenate([np.diff(shard["offsets"]) for shard in self._shards])

    @cached_property
    def prompt_lengths(self) -> np.ndarray:
        return np.concatenate([shard["prompts"].astype(np.int64) for shard in self._shards])

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        shard, row = self._shards[number], place - int(self._starts[number])
        start, stop = shard["offsets"][row : row + 2]
        return example(shard["names"][row].decode(), shard["tokens"][start:stop].tolist(), int(shard["prompts"][row]))

    def check(self, tokenizer: Any, template: str, max_length: int) -> None:
        """Refuse tokens of another tokenizer, template or length than a training job has.

        Raises:
            MergebenchError: what differs, and what to do.
        """
        made = (self.facts["template"], self.facts["max_length"])
        if made != (template, max_length):
            raise MergebenchError(
                f"{self.path} has template {made[0]} and max_length {made[1]}; training wants {template} and {max_length}."
            )
        if self.facts["tokenizer_sha256"] != tokenizer_sha256(tokenizer):
            raise MergebenchError(
                f"{self.path} was made with another tokenizer than that of {tokenizer.name_or_path}; "
                "give this base a `tokenizer` of its own in the catalogue of bases."
            )


def open_tokens(manifest: Path) -> Tokens:
    """Open what the stage `tokenise` has made.

    Raises:
        MergebenchError: the manifest is not one of tokens, or its shards are incomplete.
    """
    return Tokens(manifest)
