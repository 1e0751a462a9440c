"""What all backends share: from lm-eval's requests to token ids, grouped so that no work is done twice."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from mergebench.errors import MergebenchError, nearest
from mergebench.evaluation.backends.tokens import Encoder, cut, without_trailing_space

if TYPE_CHECKING:
    from mergebench.evaluation.backends.weights import LiveModel

DEFAULT_MAX_TOKENS = 256
GENERATION = ("until", "max_gen_toks", "max_total_toks", "do_sample", "temperature", "top_p", "leading_bos", "stop_token_ids")

Progress = Callable[[int, int, str], None]
Score = tuple[float, bool]
"""Log-probability of a continuation, and whether greedy decoding would give it."""


@dataclass(frozen=True)
class Question:
    """A context and what was asked to follow it.

    Attributes:
        context: token ids, at least one, that leave room for every continuation.
        continuations: different from each other, at least one token each.
        askers: of each continuation, the requests that want its score.
    """

    context: list[int]
    continuations: list[list[int]]
    askers: list[list[int]]

    @property
    def asked(self) -> int:
        """How many requests it answers."""
        return sum(map(len, self.askers))


@dataclass(frozen=True)
class Prompt:
    """A context that is to be continued, once or (sampled) several times.

    Attributes:
        context: the text; ids: its tokens.
        limit: most tokens of an answer, at least 1.
        until: strings that end an answer; stops: token ids that do.
        temperature: 0 is greedy.
        top_p: nucleus of a sampled answer.
        askers: the requests that want an answer; to each its own sample, to all the same greedy one.
    """

    context: str
    ids: list[int]
    limit: int
    until: tuple[str, ...]
    stops: frozenset[int]
    temperature: float
    top_p: float
    askers: list[int]

    @property
    def samples(self) -> int:
        """How many answers are wanted that may differ."""
        return len(self.askers) if self.temperature > 0 else 1

    def seed(self, seed: int, repeat: int | None = None) -> int:
        """A number in [0, 2^62) from the model's seed, the text and the repeat, and from nothing else."""
        parts = [seed, self.context] if repeat is None else [seed, repeat, self.context]
        return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 2


@dataclass
class Answer:
    """What a model generated: its tokens without the one that stopped it, and whether it ended by itself."""

    tokens: list[int]
    ended: bool


class LanguageModel(LM):
    """An lm-eval model that keeps these promises besides lm-eval's.

    - Prompts have exactly one BOS in front, where the tokenizer has one; `preflight` proves it. A request for generation may
      allow more with ``leading_bos``: what the text itself begins with is then kept, up to this number.
    - Other settings that a request for generation may have: ``until``, ``max_gen_toks``, ``do_sample``, ``temperature``, ``top_p``,
      ``max_total_toks`` (of prompt and answer together) and ``stop_token_ids`` (ids, or names of tokens, ignored where the
      vocabulary has no such token). Every other setting is an error.
    - Equal requests are one piece of work: greedy ones get the same answer, sampled ones a sample each. A sample depends on
      the seed, the prompt and its repeat only, not on what else is asked.
    - `truncated` and `unfinished` collect the contexts that lost their beginning because they were longer than the model,
      and those of which an answer ran into its limit of tokens, until the caller clears them.
    - Nothing that depends on the weights outlives `reset`.
    - `reused` counts the tokens of scored contexts that were not computed but remembered.

    Args:
        encoder: the model's tokenizer.
        max_length: positions that a prompt and its answer may take together.
        end_tokens: ids that end every generation.
        seed: seed of the sampled generations.
    """

    name = ""
    libraries: tuple[str, ...] = ()

    def __init__(self, encoder: Encoder, *, max_length: int, end_tokens: Iterable[int], seed: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.max_length = max_length
        self.end_tokens = frozenset(end_tokens)
        self.seed = seed
        self.truncated: set[str] = set()
        self.unfinished: set[str] = set()
        self.reused = 0
        self.progress: Progress | None = None
        self._bos: dict[str, Any] = {}

    # What a backend does.

    @abstractmethod
    def score(self, questions: list[Question]) -> list[list[Score]]:
        """Scores of every continuation of every question."""

    @abstractmethod
    def answer(self, prompts: list[Prompt]) -> list[list[Answer]]:
        """`samples` answers to every prompt."""

    @abstractmethod
    def device_facts(self) -> dict[str, Any]:
        """Device and dtype, and what else of this backend changes numbers."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything that depends on the weights, because they are about to change or have changed."""

    @abstractmethod
    def close(self) -> None:
        """Free the memory of the model; it cannot be asked any more."""

    def live(self) -> "LiveModel":
        """Its weights, to be replaced in place by those of another checkpoint of the same shape.

        Raises:
            MergebenchError: this backend, or the way in which it was started, does not allow it.
        """
        raise MergebenchError(f"the {self.name} backend cannot replace the weights of a live model; use transformers or vllm.")

    def received(self, ids: list[int]) -> list[int]:
        """The token ids that the model is given for a prompt of `ids`."""
        return ids

    # What callers ask of any backend.

    @property
    def tokenizer(self) -> Any:
        """The `transformers` tokenizer."""
        return self.encoder.tokenizer

    @property
    def tokenizer_name(self) -> str:
        """Identifies the rendering of prompts, for lm-eval: a digest of the chat template."""
        return self.encoder.template_sha256

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context."""
        bos = self.encoder.bos
        return int(self.tokenizer.eos_token_id if bos is None else bos)

    def encode(self, texts: Sequence[str], leading_bos: int = 1) -> list[list[int]]:
        """Token ids of each text; see `Encoder.encode`."""
        return self.encoder.encode(texts, leading_bos)

    def tok_encode(self, string: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of one text, by lm-eval's name for it."""
        return self.encode([string], int(add_special_tokens))[0]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render messages with the tokenizer's template; without one, say so."""
        return self.encoder.render(chat_history, add_generation_prompt)

    def preflight(self) -> None:
        """Prove that prompts reach the model with exactly one BOS.

        Raises:
            MergebenchError: they do not.
        """
        for kind, ids in self.encoder.probes().items():
            found = self.received(ids)
            if found != ids:
                raise MergebenchError(
                    f"{self.name} was given {ids[:4]}... for {kind} and took {found[:4]}...; it must take tokens as given."
                )
        # A tokenizer without BOS has nothing to prove.
        self._bos = {"token_id": self.encoder.bos, "exactly_one": self.encoder.bos is not None}

    def facts(self) -> dict[str, Any]:
        """What answers depend on besides the weights and the requests."""
        return {
            "backend": self.name,
            **self.device_facts(),
            "versions": versions(self.libraries),
            "max_length": self.max_length,
            "chat_template_sha256": self.tokenizer_name if self.tokenizer.chat_template else None,
            "bos": dict(self._bos),
        }

    # Log-likelihoods.

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Score]:
        pairs = [without_trailing_space(*request.args) for request in requests]
        contexts = self.encode([context for context, _ in pairs])
        wholes = self.encode([context + continuation for context, continuation in pairs])
        encoded = []
        for request, (_, continuation), context, whole in zip(requests, pairs, contexts, wholes, strict=True):
            if not context:
                context, whole = [self.prefix_token_id], [self.prefix_token_id, *whole]
            if continuation and len(whole) <= len(context):
                # The end of the context has merged into one token with all of the continuation.
                context = whole[:-1]
            encoded.append((request.args[0], context, whole[len(context) :]))
        return self._scores(encoded)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-probability of whole texts; one longer than the model in windows that do not overlap, as lm-eval has them."""
        encoded, owner = [], []
        for number, request in enumerate(requests):
            (text,) = request.args
            [ids] = self.encode([text], leading_bos=0)
            windows = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1)
            for context, continuation in map(make_disjoint_window, windows):
                encoded.append((text, list(context), list(continuation)))
                owner.append(number)
        sums = [0.0] * len(requests)
        for number, (value, _) in zip(owner, self._scores(encoded), strict=True):
            sums[number] += value
        return sums

    def _scores(self, requests: list[tuple[str, list[int], list[int]]]) -> list[Score]:
        """Scores of continuations; requests with the same context are one question."""
        groups: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
        results: list[Score] = [(0.0, True)] * len(requests)
        for index, (text, context, continuation) in enumerate(requests):
            if not continuation:
                continue
            # The last token is never an input: nothing is predicted from it.
            room = self.max_length + 1 - len(continuation)
            if room < 1:
                raise MergebenchError(
                    f"a continuation of {len(continuation)} tokens cannot be scored by a model of {self.max_length} positions: "
                    f"{text[-40:]!r} is followed by more than it can hold; leave this row out or raise max_length."
                )
            if len(context) > room:
                self.truncated.add(text)
                context = self.encoder.keep_end(context, room)
            groups.setdefault(tuple(context), {}).setdefault(tuple(continuation), []).append(index)
        questions = [Question(list(c), [list(k) for k in group], list(group.values())) for c, group in groups.items()]
        for question, scores in zip(questions, self.score(questions) if questions else [], strict=True):
            for askers, score in zip(question.askers, scores, strict=True):
                for index in askers:
                    results[index] = score
        return results

    # Generation.

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Generate for all requests together, whatever their settings."""
        texts = [""] * len(requests)
        prompts = self._prompts(requests)
        for prompt, answers in zip(prompts, self.answer(prompts) if prompts else [], strict=True):
            decoded = self.encoder.decode([answer.tokens for answer in answers])
            for place, index in enumerate(prompt.askers):
                answer, text = answers[place % len(answers)], decoded[place % len(answers)]
                texts[index] = cut(text, prompt.until)
                if not answer.ended:
                    self.unfinished.add(prompt.context)
        return texts

    def _prompts(self, requests: list[Instance]) -> list[Prompt]:
        groups: dict[tuple[str, str], list[int]] = {}
        for index, request in enumerate(requests):
            context, settings = request.args
            groups.setdefault((context, json.dumps(settings, sort_keys=True)), []).append(index)
        found = [self._prompt(context, requests[askers[0]].args[1], askers) for (context, _), askers in groups.items()]
        return [prompt for prompt in found if prompt is not None]

    def _prompt(self, context: str, settings: Mapping[str, Any], askers: list[int]) -> Prompt | None:
        """The work of some equal requests; None where prompt and answer have a limit that the prompt alone uses up."""
        for setting in settings:
            if setting not in GENERATION:
                raise MergebenchError(f"generation setting {setting!r} is not known; {nearest(setting, list(GENERATION))}.")
        [ids] = self.encode([context], int(settings.get("leading_bos", 1)))
        if not ids:
            ids = [self.prefix_token_id]
        limit = int(settings.get("max_gen_toks", DEFAULT_MAX_TOKENS))
        if "max_total_toks" in settings:
            limit = min(limit, int(settings["max_total_toks"]) - len(ids))
        if limit < 1:
            self.unfinished.add(context)
            return None
        room = self.max_length - min(limit, self.max_length // 2)
        if len(ids) > room:
            self.truncated.add(context)
            ids = self.encoder.keep_end(ids, room)
        until = settings.get("until") or []
        return Prompt(
            context=context,
            ids=ids,
            limit=min(limit, self.max_length - len(ids)),
            until=(until,) if isinstance(until, str) else tuple(stop for stop in until if stop),
            stops=self.end_tokens | self.encoder.token_ids(settings.get("stop_token_ids") or []),
            temperature=_temperature(settings),
            top_p=float(settings.get("top_p", 1.0)),
            askers=askers,
        )

    def report(self, done: int, total: int, what: str) -> None:
        """Tell the caller how far the present call is."""
        if self.progress is not None:
            self.progress(done, total, what)


def _temperature(settings: Mapping[str, Any]) -> float:
    """0 unless a request samples: by a temperature, or by ``do_sample`` alone."""
    sampled = settings.get("do_sample", "temperature" in settings)
    return float(settings.get("temperature", 1.0) or 0.0) if sampled else 0.0


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Versions of those distributions that are installed."""
    return {library: found for library in libraries if (found := _version(library)) is not None}


@cache
def _version(library: str) -> str | None:
    """The version of a distribution: asked for with every score, and read from a file."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def end_tokens(generation_config: Any, tokenizer: Any) -> set[int]:
    """Ids that end a generation: the tokenizer's EOS and those of the model's generation settings."""
    declared = getattr(generation_config, "eos_token_id", None)
    ids = declared if isinstance(declared, list) else [declared]
    return {int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None}


def allowed_length(max_length: int | None, positions: int) -> int:
    """The positions to use: those of the model, or fewer on request."""
    if max_length is not None and not 2 <= max_length <= positions:
        raise MergebenchError(f"max_length is {max_length}; it must be from 2 to the {positions} positions that the model has.")
    return max_length or positions
