"""Measure how fast training data is prepared: tokenised, opened and searched for overlaps, on rows of a realistic size.

    python benchmarks/training_data.py --rows 50000 --threads 2

Rows are made of random words (Zipf) in the lengths of DART-Math; the tokenizer is a byte-level BPE of 32,000 tokens with Llama-3's
pre-tokenizer, trained on them. Nothing is fetched. Prints a table and, last, one line of JSON.
"""

import sys
from pathlib import Path

# A script's own folder is searched first, and statistics.py there would stand before Python's module of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

from mergebench.artifacts import Job, execute, read_json
from mergebench.training.shards.store import open_tokens

LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ITEMS = 20_000  # of the benchmark that is searched for


def words(count: int, rng: random.Random) -> list[str]:
    syllables = ["ba", "con", "di", "er", "fo", "ing", "ka", "lo", "mi", "na", "per", "qui", "ra", "sto", "tion", "ve"]
    return ["".join(rng.choices(syllables, k=rng.randint(1, 4))) + str(i % 7 or "") for i in range(count)]


def write_rows(path: Path, rows: int, names: tuple[str, str, str], seed: int) -> Path:
    """Rows of about 40 words of prompt and 180 of response, as DART-Math's; `names` of the file and the two fields."""
    rng = random.Random(seed)
    vocabulary = words(30_000, random.Random(0))
    weights = [1 / (rank + 3) for rank in range(len(vocabulary))]
    pool = rng.choices(vocabulary, weights, k=2_000_000)

    def text(length: int) -> str:
        start = rng.randrange(len(pool) - length)
        return " ".join(pool[start : start + length])

    path.parent.mkdir(parents=True)
    with path.with_name(f"{names[0]}.jsonl").open("w", encoding="utf-8") as stream:
        for index in range(rows):
            long = int(rng.lognormvariate(5.0, 0.6)) % 1500 + 10
            stream.write(json.dumps({"id": f"{index:06d}", names[1]: text(rng.randint(15, 70)), names[2]: text(long)}) + "\n")
    path.write_text('{"files": {}}')
    return path


def write_tokenizer(folder: Path, sample: list[str]) -> Path:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(LLAMA_3), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(sample, trainers.BpeTrainer(vocab_size=32_000, special_tokens=["<bos>", "<eos>"], initial_alphabet=alphabet))
    PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<bos>", eos_token="<eos>").save_pretrained(folder)
    return folder


def tokenise(folder: Path, threads: int) -> dict[str, float]:
    """Tokenise the rows; seconds by part of the stage, and the peak memory in MiB of the largest process."""
    from mergebench.training.shards import run

    outputs = {
        name: folder / f"tokens/{file}" for name, file in (("shards", "shards"), ("card", "card.json"), ("manifest", "manifest.json"))
    }
    spec = {"training_set": "train_math", "tokenizer": "bpe", "template": "alpaca", "max_length": 4096}
    inputs = {"data": folder / "data/train_math/manifest.json", "weights": folder / "base/weights"}
    job = Job("tokenise", spec, inputs, outputs, folder / "tokens-state", threads=threads)
    execute(run, job)
    return job.timings | used()


def search(folder: Path, threads: int) -> dict[str, float]:
    """Look for overlaps with the benchmark; as `tokenise`."""
    from mergebench.data.decontamination import run

    files = (("report", "report.csv"), ("summary", "report.md"), ("hits", "hits.jsonl"), ("manifest", "manifest.json"))
    outputs = {name: folder / f"overlap/{file}" for name, file in files}
    inputs = {"data": folder / "data/train_math/manifest.json", "benchmarks": [folder / "data/gsm8k/manifest.json"]}
    job = Job("decontaminate", {"training_set": "train_math"}, inputs, outputs, folder / "overlap-state", threads=threads)
    execute(run, job)
    return job.timings | used()


def used() -> dict[str, float]:
    """Processor seconds of this process and its children so far, and the peak memory in MiB of the largest of them."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"cpu": sum(one.ru_utime + one.ru_stime for one in usage), "peak": max(one.ru_maxrss for one in usage) / 1024}


def alone(work: Callable[[Path, int], dict[str, float]], folder: Path, threads: int) -> dict[str, float]:
    """Call in a new process, so that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, folder, threads).result()


def measured(folder: Path, rows: int, threads: int) -> dict[str, float]:
    data = write_rows(folder / "data/train_math/manifest.json", rows, ("train", "prompt", "response"), seed=1)
    write_rows(folder / "data/gsm8k/manifest.json", ITEMS, ("rows", "question", "answer"), seed=2)
    with data.with_name("train.jsonl").open(encoding="utf-8") as stream:
        write_tokenizer(folder / "base/weights", [json.loads(line)["response"] for line in islice(stream, 4000)])
    tokenised, searched = alone(tokenise, folder, threads), alone(search, folder, threads)
    facts = read_json(folder / "tokens/manifest.json")
    started = time.perf_counter()
    tokens = open_tokens(folder / "tokens/manifest.json")
    tokens.lengths.sum()
    opened = time.perf_counter() - started
    chosen = random.Random(0).sample(range(len(tokens)), min(len(tokens), 10_000))
    started = time.perf_counter()
    for index in chosen:
        tokens[index]
    read = time.perf_counter() - started
    return {
        "rows": rows,
        "threads": threads,
        "megabytes of rows": round(data.with_name("train.jsonl").stat().st_size / 1e6),
        "tokens": facts["tokens"],
        "tokenise: rows/s": round(rows / tokenised["tokenise"]),
        "tokenise: tokens/s": round(facts["tokens"] / tokenised["tokenise"]),
        "tokenise: processor seconds, imports included": round(tokenised["cpu"], 1),
        "tokenise: peak MiB of a process": round(tokenised["peak"]),
        "open and read all lengths: ms": round(1000 * opened, 1),
        "random rows read/s": round(len(chosen) / read),
        f"overlap with {ITEMS:,} items: rows/s": round(rows / searched["search"]),
        "overlap: index of the items: s": round(searched["index"], 1),
        "overlap: processor seconds, imports included": round(searched["cpu"], 1),
        "overlap: peak MiB of a process": round(searched["peak"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=2, help="processes that tokenise and search")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measured(Path(folder), options.rows, options.threads)
    for name, value in result.items():
        print(f"{name:48} {value:>14,}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
