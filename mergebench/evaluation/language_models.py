"""Language-model backends: what lm-eval asks (log-likelihoods and generations), answered by live weights.

`load` is the one place that knows the backends; each is an `lm_eval.api.model.LM` with three more promises:

- `encode` gives every prompt exactly one beginning-of-sequence token, where the tokenizer has one;
- `truncated` and `unfinished` collect the contexts that had to be cut, and those whose generation ran into its limit of
  tokens, until the caller clears them;
- nothing that depends on the weights is kept between calls, so the owner of `model` may write its
  parameters in place and score again.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from mergebench.errors import MergebenchError
from mergebench.evaluation import attention

DEFAULT_MAX_TOKENS = 256
STOP_CHECK_EVERY = 4
TOKEN_CACHE = 200_000
BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}
LOGITS = 1 << 30

Progress = Callable[[int, int, str], None]


@dataclass
class Generation:
    """One row of a batch that is being generated."""

    index: int
    context: str
    prompt: list[int]
    limit: int
    until: list[str]
    temperature: float
    top_p: float
    uniforms: np.ndarray | None
    tokens: list[int] = field(default_factory=list)
    ended: bool = False


class TransformersLanguageModel(TemplateLM):
    """A causal `transformers` model, batched by length.

    Args:
        model: the live module, on its device, in evaluation mode. Its weights may change between calls.
        tokenizer: its fast tokenizer, with the chat template where there is one.
        batch_tokens: tokens (padding included) that one forward pass may hold; by default few on a CPU, whose cache they
            should fit, and many on a GPU.
        seed: seed of the sampled generations; each depends on its prompt, its repeat and this number only.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_tokens: int | None = None, seed: int = 0) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.seed = seed
        self.truncated: set[str] = set()
        self.unfinished: set[str] = set()
        self.progress: Progress | None = None
        self._device = next(model.parameters()).device
        self.batch_tokens = batch_tokens or BATCH_TOKENS.get(self._device.type, BATCH_TOKENS["cpu"])
        self._encoded: dict[str, list[int]] = {}
        self._stops = _end_tokens(model, tokenizer)

    @classmethod
    def from_folder(
        cls,
        weights: Path,
        *,
        dtype: str = "float32",
        device: str | None = None,
        batch_tokens: int | None = None,
        seed: int = 0,
    ) -> "TransformersLanguageModel":
        """Load a Hugging Face folder; `dtype` is float32 or bfloat16, `device` defaults to the GPU if there is one."""
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        if dtype not in dtypes:
            raise MergebenchError(f"dtype is {dtype!r}; the transformers backend knows float32 and bfloat16.")
        logging.disable_progress_bar()
        config = AutoConfig.from_pretrained(weights)
        # Fused attention leaves out Gemma-2's soft-capping.
        kernel = "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"
        model: Any = AutoModelForCausalLM.from_pretrained(weights, config=config, dtype=dtypes[dtype], attn_implementation=kernel)
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        return cls(model, AutoTokenizer.from_pretrained(weights), batch_tokens=batch_tokens, seed=seed)

    # What lm-eval needs to know of a model.

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        bos = self.tokenizer.bos_token_id
        return int(self.eot_token_id if bos is None else bos)

    @property
    def max_length(self) -> int:
        """Positions that the model can hold."""
        return int(self.model.config.max_position_embeddings)

    @property
    def tokenizer_name(self) -> str:
        """Identifies the rendering of prompts: a digest of the chat template."""
        return hashlib.sha256(str(self.tokenizer.chat_template).encode()).hexdigest()

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render messages with the tokenizer's template; without one, say so."""
        if not self.tokenizer.chat_template:
            raise MergebenchError(
                "apply_chat_template is true, but the model's tokenizer has no chat template; "
                "set evaluation.apply_chat_template to false or add a template to its tokenizer."
            )
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    # Tokens.

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        if add_special_tokens is False:
            return list(self.tokenizer(string, add_special_tokens=False)["input_ids"])
        return self.encode([string])[0]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, with exactly one BOS in front where the tokenizer has one."""
        missing = list({text for text in texts if text not in self._encoded})
        if missing:
            if len(self._encoded) > TOKEN_CACHE:
                self._encoded.clear()
                missing = list(set(texts))
            bos = self.tokenizer.bos_token_id
            for text, ids in zip(missing, self.tokenizer(missing, add_special_tokens=False, verbose=False)["input_ids"], strict=True):
                self._encoded[text] = _one_bos(ids, bos)
        return [self._encoded[text] for text in texts]

    # Batches.

    def _tokens_fit(self, rows: int, first: int, second: int) -> bool:
        return rows * (first + second) <= self.batch_tokens

    def _branches_fit(self, rows: int, context: int, tail: int) -> bool:
        """Besides the tokens, the logits of all branches must fit into memory: vocabularies are large."""
        return self._tokens_fit(rows, context, tail) and rows * (tail + 1) * self.model.config.vocab_size <= LOGITS

    # Log-likelihoods.

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        pairs = [_without_trailing_space(*request.args) for request in requests]
        contexts = self.encode([context for context, _ in pairs])
        wholes = self.encode([context + continuation for context, continuation in pairs])
        encoded = []
        for request, context, whole in zip(requests, contexts, wholes, strict=True):
            if not context:
                context, whole = [self.prefix_token_id], [self.prefix_token_id, *whole]
            encoded.append((request.args, context, whole[len(context) :]))
        return self._loglikelihood_tokens(encoded)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Sum of log-probabilities of each continuation, and whether greedy decoding would give it.

        Requests with the same context share one row: context, then the continuations side by side, each seeing the
        context and itself. A question with four choices costs one pass over its prompt and not four.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, ((text, _), context, continuation) in enumerate(requests):
            room = self.max_length + 1 - len(continuation)
            if len(context) > room:
                self.truncated.add(text)
                context = _keep_end(context, room, self.tokenizer.bos_token_id)
            groups.setdefault(tuple(context), []).append(index)
        rows = [(list(context), [requests[i][2] for i in indices], indices) for context, indices in groups.items()]
        rows.sort(key=lambda row: (len(row[0]), sum(map(len, row[1]))))
        results: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        done = 0
        for batch in _batches(rows, lambda row: (len(row[0]), sum(len(c) - 1 for c in row[1])), self._branches_fit):
            scores = self._score_branches([row[0] for row in batch], [row[1] for row in batch])
            for (_, _, indices), branch_scores in zip(batch, scores, strict=True):
                for index, score in zip(indices, branch_scores, strict=True):
                    results[index] = score
            done += sum(len(row[2]) for row in batch)
            self._report(done, len(requests), "choices scored")
        return results

    @torch.inference_mode()
    def _score_branches(self, contexts: list[list[int]], branches: list[list[list[int]]]) -> list[list[tuple[float, bool]]]:
        """One forward pass over left-padded contexts, each followed by its branches.

        The last token of a branch is never an input: nothing is predicted from it.
        """
        width = max(map(len, contexts))
        tail = max(sum(len(b) - 1 for b in group) for group in branches)
        shape = (len(contexts), width + tail)
        ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        segment = np.full(shape, -1, np.int64)
        row_of, column_of, target, owner = [], [], [], []
        for row, (context, group) in enumerate(zip(contexts, branches, strict=True)):
            length, start = len(context), width
            ids[row, width - length : width] = context
            positions[row, width - length : width] = np.arange(length)
            segment[row, width - length : width] = 0
            for number, branch in enumerate(group, start=1):
                end = start + len(branch) - 1
                ids[row, start:end] = branch[:-1]
                positions[row, start:end] = np.arange(length, length + end - start)
                segment[row, start:end] = number
                # Columns count from the context's last token, the first whose prediction is needed.
                column_of += [0, *range(start - width + 1, end - width + 1)]
                row_of += [row] * len(branch)
                target += branch
                owner += [(row, number - 1)] * len(branch)
                start = end
        device = self._device
        at, part = torch.from_numpy(positions).to(device), torch.from_numpy(segment).to(device)
        index = torch.arange(shape[1], device=device)
        seen = (part[:, None, :] == 0) | (part[:, None, :] == part[:, :, None])
        allowed = (index[None, :, None] >= index[None, None, :]) & seen & (part[:, None, :] >= 0)
        allowed |= torch.eye(shape[1], dtype=torch.bool, device=device)  # padding sees itself, else softmax is undefined
        logits = self.model(
            input_ids=torch.from_numpy(ids).to(device),
            position_ids=at,
            attention_mask=attention.for_model(self.model.config, allowed, at[:, :, None] - at[:, None, :], self.model.dtype),
            use_cache=False,
            logits_to_keep=tail + 1,
        ).logits
        picked = logits[torch.tensor(row_of, device=device), torch.tensor(column_of, device=device)].float()
        wanted = torch.tensor(target, device=device)[:, None]
        logprob = (picked.gather(1, wanted)[:, 0] - picked.logsumexp(-1)).double().tolist()
        greedy = (picked.argmax(-1) == wanted[:, 0]).tolist()
        sums = [[0.0] * len(group) for group in branches]
        exact = [[True] * len(group) for group in branches]
        for (row, number), value, hit in zip(owner, logprob, greedy, strict=True):
            sums[row][number] += value
            exact[row][number] &= hit
        return [list(zip(s, e, strict=True)) for s, e in zip(sums, exact, strict=True)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        encoded = []
        for request in requests:
            (text,) = request.args
            ids = self.tok_encode(text, add_special_tokens=False)
            if len(ids) > self.max_length:
                raise MergebenchError(
                    f"a text of {len(ids)} tokens is longer than the model's {self.max_length} positions; split it first."
                )
            encoded.append(((text, text), [self.prefix_token_id], ids))
        return [score for score, _ in self._loglikelihood_tokens(encoded)]

    # Generation.

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Generate for all requests together, whatever their settings; a row leaves its batch when it ends."""
        rows = self._rows(requests)
        rows.sort(key=lambda row: (len(row.prompt), row.limit))
        texts = [""] * len(rows)
        done = 0
        for batch in _batches(rows, lambda row: (len(row.prompt), row.limit), self._tokens_fit):
            self._generate(batch)
            for row, text in zip(batch, self._decode(batch), strict=True):
                texts[row.index] = _cut(text, row.until)
                if not row.ended:
                    self.unfinished.add(row.context)
            done += len(batch)
            self._report(done, len(rows), "answers generated")
        return texts

    def _rows(self, requests: list[Instance]) -> list[Generation]:
        occurrences: Counter[str] = Counter()
        rows = []
        for index, (request, ids) in enumerate(zip(requests, self.encode([request.args[0] for request in requests]), strict=True)):
            context, arguments = request.args
            limit = int(arguments.get("max_gen_toks", DEFAULT_MAX_TOKENS))
            until = arguments.get("until") or []
            temperature = float(arguments.get("temperature") or 0.0) if arguments.get("do_sample") else 0.0
            room = self.max_length - min(limit, self.max_length // 2)
            if len(ids) > room:
                self.truncated.add(context)
                ids = _keep_end(ids, room, self.tokenizer.bos_token_id)
            limit = min(limit, self.max_length - len(ids))
            uniforms = None
            if temperature > 0:
                key = f"{self.seed}\0{occurrences[context]}\0{context}".encode()
                uniforms = np.random.default_rng(list(hashlib.sha256(key).digest())).random(limit)
                occurrences[context] += 1
            rows.append(
                Generation(
                    index=index,
                    context=context,
                    prompt=ids,
                    limit=limit,
                    until=[until] if isinstance(until, str) else [stop for stop in until if stop],
                    temperature=temperature,
                    top_p=float(arguments.get("top_p", 1.0)),
                    uniforms=uniforms,
                )
            )
        return rows

    @torch.inference_mode()
    def _generate(self, batch: list[Generation]) -> None:
        """Fill `tokens` and `ended` of every row of a batch; prompts are padded on the left."""
        device, dtype, config = self._device, self.model.dtype, self.model.config
        width = max(len(row.prompt) for row in batch)
        steps = max(row.limit for row in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        valid = torch.zeros(len(batch), width + steps, dtype=torch.bool)
        for number, row in enumerate(batch):
            ids[number, width - len(row.prompt) :] = torch.tensor(row.prompt)
            valid[number, width - len(row.prompt) :] = True
        ids, valid = ids.to(device), valid.to(device)
        lengths = torch.tensor([len(row.prompt) for row in batch], device=device)
        index = torch.arange(width + steps, device=device)
        at = (index[:width] + lengths[:, None] - width).clamp(min=0)
        distance = (index[:width, None] - index[None, :width])[None]
        allowed = (distance >= 0) & (valid[:, None, :width] | (distance == 0))
        mask = attention.for_model(config, allowed, distance, dtype)
        cache = attention.growing_cache(config, width + steps)
        active = list(batch)
        for step in range(steps):
            output = self.model(
                input_ids=ids, position_ids=at, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            chosen = self._choose(output.logits[:, -1], active)
            check = step % STOP_CHECK_EVERY == STOP_CHECK_EVERY - 1
            keep = self._advance(active, chosen.tolist(), check)
            if not keep:
                return
            if len(keep) <= len(active) // 2:
                rows = torch.tensor(keep, device=device)
                for layer in cache.layers:
                    layer.select(rows)  # type: ignore[union-attr]
                chosen, valid, lengths = chosen[rows], valid[rows], lengths[rows]
                active = [active[number] for number in keep]
            ids, at = chosen[:, None], (lengths + step)[:, None]
            keys = width + step + 1
            mask = attention.for_model(config, valid[:, None, :keys], (keys - 1 - index[:keys])[None, None], dtype)

    def _choose(self, logits: torch.Tensor, active: list[Generation]) -> torch.Tensor:
        """The next token of every row: the most probable one, or by inverse transform of the row's own uniforms."""
        chosen = logits.argmax(-1)
        for number, row in enumerate(active):
            if row.uniforms is not None and len(row.tokens) < row.limit:
                probability, order = torch.softmax(logits[number].double() / row.temperature, -1).sort(descending=True)
                cumulative = probability.cumsum(0)
                nucleus = cumulative[: int((cumulative < row.top_p).sum()) + 1]
                draw = nucleus[-1] * float(row.uniforms[len(row.tokens)])
                chosen[number] = order[min(int((nucleus <= draw).sum()), len(nucleus) - 1)]
        return chosen

    def _advance(self, active: list[Generation], chosen: list[int], check_stops: bool) -> list[int]:
        """Append a token to every running row; returns the indices of those that go on."""
        running = []
        for number, (row, token) in enumerate(zip(active, chosen, strict=True)):
            if row.ended or len(row.tokens) >= row.limit:
                continue
            if token in self._stops:
                row.ended = True
                continue
            row.tokens.append(token)
            running.append(number)
        if check_stops or any(len(active[number].tokens) >= active[number].limit for number in running):
            rows = [active[number] for number in running]
            for row, text in zip(rows, self._decode(rows), strict=True):
                row.ended = any(stop in text for stop in row.until)
        return [n for n in running if not active[n].ended and len(active[n].tokens) < active[n].limit]

    def _decode(self, rows: Sequence[Generation]) -> list[str]:
        return self.tokenizer.batch_decode([row.tokens for row in rows], skip_special_tokens=True) if rows else []

    def _report(self, done: int, total: int, what: str) -> None:
        if self.progress is not None:
            self.progress(done, total, what)


BACKENDS = {"transformers": TransformersLanguageModel.from_folder}


def load(backend: str, weights: Path, **settings: Any) -> TransformersLanguageModel:
    """The language model of a weights folder by backend name."""
    if backend not in BACKENDS:
        raise MergebenchError(f"evaluation.backend is {backend!r}; available: {', '.join(BACKENDS)}.")
    return BACKENDS[backend](weights, **settings)


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Ids that end a generation: the tokenizer's EOS and those of the model's generation settings."""
    declared = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = declared if isinstance(declared, list) else [declared]
    return {int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None}


def _one_bos(ids: list[int], bos: int | None) -> list[int]:
    if bos is None:
        return list(ids)
    start = 0
    while start < len(ids) and ids[start] == bos:
        start += 1
    return [bos, *ids[start:]]


def _keep_end(ids: list[int], room: int, bos: int | None) -> list[int]:
    """The last `room` tokens, with BOS kept in front."""
    if bos is not None and ids[0] == bos:
        return [bos, *ids[len(ids) - room + 1 :]]
    return ids[len(ids) - room :]


def _without_trailing_space(context: str, continuation: str) -> tuple[str, str]:
    """Move spaces at the end of the context to the continuation, where a tokenizer expects them.

    Unlike lm-eval's own backends, line breaks stay: a chat template that ends in one would otherwise ask the model
    to predict the end of its own prompt.
    """
    stripped = context.rstrip(" \t")
    return stripped, context[len(stripped) :] + continuation


def _cut(text: str, until: Iterable[str]) -> str:
    for stop in until:
        text = text.split(stop)[0]
    return text


def _batches(rows: list[Any], size: Callable[[Any], tuple[int, int]], fits: Callable[[int, int, int], bool]) -> Iterable[list[Any]]:
    """Split sorted rows into batches of which `fits(rows, longest first part, longest second part)` holds."""
    batch: list[Any] = []
    first = second = 0
    for row in rows:
        a, b = size(row)
        if batch and not fits(len(batch) + 1, max(first, a), max(second, b)):
            yield batch
            batch, first, second = [], 0, 0
        batch.append(row)
        first, second = max(first, a), max(second, b)
    if batch:
        yield batch
