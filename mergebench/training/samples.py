"""What SFT trains on: tokenised samples by number, those of several domains one after the other."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from typing import Any, Protocol

from mergebench.training.examples import Example


class Samples(Protocol):
    """Tokenised samples of one training set: in memory (`Listed`) or in files that are mapped into it (`shards`)."""

    @property
    def lengths(self) -> Any: ...  # tokens of each sample: integers, a list or an array

    @property
    def prompt_lengths(self) -> Any: ...  # of them without loss, from the first

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


class Listed:
    """Samples that are held in a list."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples
        self.lengths = [len(example.input_ids) for example in examples]
        self.prompt_lengths = [len(example.input_ids) - example.response_tokens for example in examples]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int, /) -> Example:
        return self.examples[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)


class Joined:
    """The samples of several training sets under one numbering."""

    def __init__(self, parts: Sequence[Samples]) -> None:
        self.parts = parts
        self.starts = [0, *accumulate(map(len, parts))]
        # Plain integers: packing looks at each of them many times.
        self.lengths = [*chain.from_iterable(_plain(part.lengths) for part in parts)]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int, /) -> Example:
        part = bisect_right(self.starts, index) - 1
        return self.parts[part][index - self.starts[part]]

    @property
    def response_tokens(self) -> int:
        return sum(self.lengths) - sum(int(sum(_plain(part.prompt_lengths))) for part in self.parts)


def _plain(values: Any) -> Sequence[int]:
    return values.tolist() if hasattr(values, "tolist") else values
