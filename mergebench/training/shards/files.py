"""One shard: four NumPy files with the tokens of some thousand rows, and one with what became of the rows.

    tokens-00000.npy    int32 (tokens,)      all rows' ids, prompt and response, end to end
    offsets-00000.npy   int64 (rows + 1,)    where each row begins
    prompts-00000.npy   int32 (rows,)        tokens of a row without loss
    names-00000.npy     bytes (rows,)        the rows' ids in UTF-8

Rows are not padded, and a file can be mapped into memory.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mergebench.data.lines import Span, numbered
from mergebench.errors import MergebenchError
from mergebench.training.encoding import Encoded, Encoder

BATCH = 256  # rows that are encoded at once
PARTS = ("tokens", "offsets", "prompts", "names")
FATES = "fates.json"  # counts of one shard; in the state folder only
REMOVED = "overlaps a benchmark"


def part(folder: Path, name: str, number: int) -> Path:
    """The file of one part of a shard."""
    return folder / f"{name}-{number:05d}.npy"


def write_shard(path: Path, span: Span, encoder: Encoder, removed: set[str], folder: Path) -> dict[str, Any]:
    """Encode the lines of a span and write them as the files of one shard; `folder` appears when it is complete.

    Returns:
        What became of the rows: ``in``, ``out``, ``dropped`` by reason, ``cut`` responses, ``cut_tokens``.

    Raises:
        MergebenchError: a line that is not a row, with its number.
    """
    tokens: list[np.ndarray] = []
    lengths: list[int] = []
    prompts: list[int] = []
    names: list[bytes] = []
    dropped: Counter[str] = Counter()
    cut = cut_tokens = seen = 0
    for rows in _batches(_rows(path, span)):
        seen += len(rows)
        kept = [row for row in rows if row["id"] not in removed]
        dropped[REMOVED] += len(rows) - len(kept)
        for row, one in zip(kept, encoder.encode(kept), strict=True):
            if not isinstance(one, Encoded):
                dropped[one] += 1
                continue
            tokens.append(np.asarray(one.ids, dtype=np.int32))
            lengths.append(len(one.ids))
            prompts.append(one.prompt_length)
            names.append(row["id"].encode())
            cut += one.cut > 0
            cut_tokens += one.cut
    counts = {"in": seen, "out": len(lengths), "dropped": {k: v for k, v in dropped.items() if v}, "cut": cut, "cut_tokens": cut_tokens}
    temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    temporary.mkdir(parents=True, exist_ok=True)
    arrays = {
        "tokens": np.concatenate(tokens) if tokens else np.empty(0, dtype=np.int32),
        "offsets": np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64),
        "prompts": np.asarray(prompts, dtype=np.int32),
        "names": np.asarray(names, dtype=np.bytes_) if names else np.empty(0, dtype="S1"),
    }
    for name, array in arrays.items():
        np.save(part(temporary, name, span.number), array, allow_pickle=False)
    (temporary / FATES).write_text(json.dumps(counts), encoding="utf-8")
    os.rename(temporary, folder)
    return counts


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    source = iter(rows)
    while batch := list(islice(source, BATCH)):
        yield batch


def _rows(path: Path, span: Span) -> Iterator[dict[str, Any]]:
    for number, content in numbered(path, span):
        try:
            row = json.loads(content)
        except ValueError as error:
            raise MergebenchError(f"{path}, line {number}: not valid JSON ({error}); make the data again.") from None
        yield _checked(row, f"{path}, line {number}")


def _checked(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise MergebenchError(f"{where}: a {type(row).__name__}, expected an object; make the data again.")
    wrong = [key for key in ("id", "prompt", "response") if not isinstance(row.get(key), str)]
    if wrong:
        raise MergebenchError(f"{where}: {', '.join(wrong)} is missing or not a text; make the data again.")
    return dict(row)


def counted(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The counts of all shards together."""
    dropped: Counter[str] = Counter()
    for one in counts:
        dropped.update(one["dropped"])
    sums = {name: sum(one[name] for one in counts) for name in ("in", "out", "cut", "cut_tokens")}
    return {**sums, "dropped": dict(sorted(dropped.items()))}
