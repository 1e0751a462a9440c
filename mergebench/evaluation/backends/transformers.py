"""The transformers backend: batches of similar length, for a CPU, for live weights, and wherever vLLM is not installed."""

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mergebench.errors import MergebenchError
from mergebench.evaluation.backends import attention
from mergebench.evaluation.backends.base import Answer, LanguageModel, Prompt, Question, Score, allowed_length, end_tokens
from mergebench.evaluation.backends.tokens import Encoder
from mergebench.evaluation.backends.weights import ModuleWeights

STOP_CHECK_EVERY = 4
BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}
LOGITS = 1 << 30
SIDE_BY_SIDE = 256


@dataclass
class Row:
    """One answer in the making; `uniforms` are the draws of a sampled one."""

    prompt: Prompt
    uniforms: np.ndarray | None
    tokens: list[int] = field(default_factory=list)
    ended: bool = False


class TransformersLanguageModel(LanguageModel):
    """A causal `transformers` model, batched by length.

    Args:
        model: the live module, on its device, in evaluation mode. Its weights may change between calls.
        tokenizer: its fast tokenizer, with the chat template where there is one.
        batch_tokens: tokens (padding included) that one forward pass may hold; by default few on a CPU, whose cache they
            should fit, and many on a GPU.
        seed: seed of the sampled generations.
        max_length: positions to use; by default all that the model has.
    """

    name = "transformers"
    libraries = ("transformers", "torch", "tokenizers")

    def __init__(
        self, model: Any, tokenizer: Any, *, batch_tokens: int | None = None, seed: int = 0, max_length: int | None = None
    ) -> None:
        length = allowed_length(max_length, int(model.config.max_position_embeddings))
        ends = end_tokens(getattr(model, "generation_config", None), tokenizer)
        super().__init__(Encoder(tokenizer), max_length=length, end_tokens=ends, seed=seed)
        self.model = model
        self._device = next(model.parameters()).device
        self.batch_tokens = batch_tokens or BATCH_TOKENS.get(self._device.type, BATCH_TOKENS["cpu"])

    @classmethod
    def from_folder(
        cls,
        weights: Path,
        *,
        dtype: str = "float32",
        device: str | None = None,
        batch_tokens: int | None = None,
        seed: int = 0,
        max_length: int | None = None,
    ) -> "TransformersLanguageModel":
        """Load a Hugging Face folder; `dtype` is float32 or bfloat16, `device` defaults to the GPU if there is one."""
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.utils import logging

        dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        if dtype not in dtypes:
            raise MergebenchError(f"dtype is {dtype!r}; the transformers backend knows float32 and bfloat16.")
        tokenizer = Encoder.from_folder(weights).tokenizer
        logging.disable_progress_bar()
        config = AutoConfig.from_pretrained(weights)
        # Fused attention leaves out Gemma-2's soft-capping.
        kernel = "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"
        model: Any = AutoModelForCausalLM.from_pretrained(weights, config=config, dtype=dtypes[dtype], attn_implementation=kernel)
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        return cls(model, tokenizer, batch_tokens=batch_tokens, seed=seed, max_length=max_length)

    def device_facts(self) -> dict[str, Any]:
        device = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else self._device.type
        return {
            "device": device,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attention": self.model.config._attn_implementation,
        }

    def reset(self) -> None:
        """Nothing to do: no key or value outlives the batch that it was computed for."""

    def live(self) -> ModuleWeights:
        return ModuleWeights(self.model)

    def close(self) -> None:
        self.model = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    # Batches.

    def _tokens_fit(self, rows: int, first: int, second: int) -> bool:
        return rows * (first + second) <= self.batch_tokens

    def _branches_fit(self, rows: int, context: int, tail: int) -> bool:
        """Besides the tokens, the logits of all branches must fit into memory: vocabularies are large."""
        return self._tokens_fit(rows, context, tail) and rows * (tail + 1) * self.model.config.vocab_size <= LOGITS

    # Log-likelihoods.

    def score(self, questions: list[Question]) -> list[list[Score]]:
        """Questions share a batch with others of similar length.

        A question is one row: context, then the continuations side by side, each seeing the context and itself. A question
        with four choices costs one pass over its prompt and not four.
        """
        results: list[list[Score]] = [[] for _ in questions]
        rows = [(number, question.context, part) for number, question in enumerate(questions) for part in _parts(question)]
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i][1]), _tail(rows[i][2])))
        found: list[list[Score]] = [[] for _ in rows]
        done = 0
        for batch in _batches(order, lambda i: (len(rows[i][1]), _tail(rows[i][2])), self._branches_fit):
            for i, scores in zip(batch, self._score_branches([rows[i][1] for i in batch], [rows[i][2] for i in batch]), strict=True):
                found[i] = scores
            done += len(batch)
            self.report(done, len(rows), "questions scored")
        for (number, _, _), scores in zip(rows, found, strict=True):
            results[number] += scores
        return results

    @torch.inference_mode()
    def _score_branches(self, contexts: list[list[int]], branches: list[list[list[int]]]) -> list[list[Score]]:
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

    # Generation.

    def answer(self, prompts: list[Prompt]) -> list[list[Answer]]:
        """Prompts share a batch with others of similar length, whatever their settings; a row leaves its batch when it ends."""
        rows = [Row(prompt, self._uniforms(prompt, repeat)) for prompt in prompts for repeat in range(prompt.samples)]
        done = 0
        for batch in _batches(
            sorted(rows, key=lambda row: (len(row.prompt.ids), row.prompt.limit)),
            lambda row: (len(row.prompt.ids), row.prompt.limit),
            self._tokens_fit,
        ):
            self._generate(batch)
            done += len(batch)
            self.report(done, len(rows), "answers generated")
        answers = iter(Answer(row.tokens, row.ended) for row in rows)
        return [[next(answers) for _ in range(prompt.samples)] for prompt in prompts]

    def _uniforms(self, prompt: Prompt, repeat: int) -> np.ndarray | None:
        if prompt.temperature == 0:
            return None
        return np.random.default_rng(prompt.seed(self.seed, repeat)).random(prompt.limit)

    @torch.inference_mode()
    def _generate(self, batch: list[Row]) -> None:
        """Fill `tokens` and `ended` of every row of a batch; prompts are padded on the left."""
        device, dtype, config = self._device, self.model.dtype, self.model.config
        width = max(len(row.prompt.ids) for row in batch)
        steps = max(row.prompt.limit for row in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        valid = torch.zeros(len(batch), width + steps, dtype=torch.bool)
        for number, row in enumerate(batch):
            ids[number, width - len(row.prompt.ids) :] = torch.tensor(row.prompt.ids)
            valid[number, width - len(row.prompt.ids) :] = True
        ids, valid = ids.to(device), valid.to(device)
        lengths = torch.tensor([len(row.prompt.ids) for row in batch], device=device)
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

    def _choose(self, logits: torch.Tensor, active: list[Row]) -> torch.Tensor:
        """The next token of every row: the most probable one, or by inverse transform of the row's own uniforms."""
        chosen = logits.argmax(-1)
        for number, row in enumerate(active):
            if row.uniforms is not None and len(row.tokens) < row.prompt.limit:
                probability, order = torch.softmax(logits[number].double() / row.prompt.temperature, -1).sort(descending=True)
                cumulative = probability.cumsum(0)
                nucleus = cumulative[: int((cumulative < row.prompt.top_p).sum()) + 1]
                draw = nucleus[-1] * float(row.uniforms[len(row.tokens)])
                chosen[number] = order[min(int((nucleus <= draw).sum()), len(nucleus) - 1)]
        return chosen

    def _advance(self, active: list[Row], chosen: list[int], check_stops: bool) -> list[int]:
        """Append a token to every running row; returns the indices of those that go on."""
        running = []
        for number, (row, token) in enumerate(zip(active, chosen, strict=True)):
            if row.ended or len(row.tokens) >= row.prompt.limit:
                continue
            if token in row.prompt.stops:
                row.ended = True
                continue
            row.tokens.append(token)
            running.append(number)
        if check_stops or any(len(active[number].tokens) >= active[number].prompt.limit for number in running):
            rows = [active[number] for number in running]
            for row, text in zip(rows, self._decode(rows), strict=True):
                row.ended = any(stop in text for stop in row.prompt.until)
        return [n for n in running if not active[n].ended and len(active[n].tokens) < active[n].prompt.limit]

    def _decode(self, rows: Sequence[Row]) -> list[str]:
        return self.encoder.decode([row.tokens for row in rows])


def _tail(continuations: Sequence[list[int]]) -> int:
    """Tokens that the continuations add to a row."""
    return sum(len(continuation) - 1 for continuation in continuations)


def _parts(question: Question) -> Iterable[list[list[int]]]:
    """The continuations, split where side by side they would be much longer than what they share."""
    allowed = max(SIDE_BY_SIDE, 4 * len(question.context))
    part: list[list[int]] = []
    for continuation in question.continuations:
        if part and _tail([*part, continuation]) > allowed:
            yield part
            part = []
        part.append(continuation)
    yield part


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
