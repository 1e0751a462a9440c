"""A language model as judge, through the same backends as the models that are evaluated."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mergebench.artifacts import read_json
from mergebench.checkpoints.digest import recorded_weights_digest
from mergebench.errors import MergebenchError
from mergebench.evaluation.safety.forms import Form
from mergebench.evaluation.safety.labels import Label, Request, is_empty

# WildGuard's own limit of 32,768 positions takes more memory than a 7B model leaves (wildguard pull request 2); a request
# with an answer of 512 tokens needs a quarter of this.
MAX_LENGTH = 4096

Progress = Callable[[int, int, str], None]


class ModelJudge:
    """A judge that generates its labels, greedily.

    The model is loaded by the first request. A request or answer too long for `max_length` is cut at its end, never the
    judge's instruction, and the label says so.

    Args:
        form: the prompt and how its answer reads.
        weights: Hugging Face folder of the judge.
        backend: name of the evaluation backend.
        settings: further arguments of the backend that cannot change a label (batch_tokens, gpu_memory).
        lm: a language model that is loaded already, instead of `weights` in memory.
    """

    def __init__(
        self,
        form: Form,
        weights: Path,
        *,
        backend: str = "transformers",
        dtype: str = "bfloat16",
        max_length: int = MAX_LENGTH,
        settings: dict[str, Any] | None = None,
        lm: Any = None,
    ) -> None:
        if not any(weights.glob("*.safetensors")):
            raise MergebenchError(f"the judge's folder {weights} has no *.safetensors file; the weights of {form.name} are expected there.")
        self.name, self.reads = form.name, form.reads
        self.code: tuple[str, ...] = (form.read.__module__,)
        self.progress: Progress | None = None
        self._form, self._weights, self._backend, self._dtype = form, weights, backend, dtype
        self._max_length, self._settings, self._lm = max_length, settings or {}, lm
        self._digest: str | None = None

    def facts(self) -> dict[str, Any]:
        self._digest = self._digest or recorded_weights_digest(self._weights)
        return {
            "name": self.name,
            "reads": list(self.reads),
            "fallback": False,
            "prompt_sha256": self._form.sha256,
            "weights_digest": self._digest,
            "backend": self._backend,
            "dtype": self._dtype,
            "max_length": self._max_length,
            "max_tokens": self._form.max_tokens,
        }

    def engine(self) -> dict[str, Any]:
        """What the loaded backend says of itself; empty before the first request."""
        return dict(self._lm.facts()) if hasattr(self._lm, "facts") else {}

    def judge(self, requests: Sequence[Request]) -> list[Label]:
        from lm_eval.api.instance import Instance

        if not requests:
            return []
        lm = self._loaded()
        lm.progress = self.progress
        fitted = self._fitted(lm, requests)
        arguments = {"until": [], "max_gen_toks": self._form.max_tokens, "do_sample": False}
        instances = [
            Instance(request_type="generate_until", doc={}, arguments=(text, dict(arguments)), idx=0, metadata=(self.name, number, 1))
            for number, (text, _) in enumerate(fitted)
        ]
        answers = lm.generate_until(instances)
        return [
            replace(self._form.read(answer), raw=answer, cut=cut, empty=is_empty(request.response))
            for request, answer, (_, cut) in zip(requests, answers, fitted, strict=True)
        ]

    def close(self) -> None:
        """Free what the model holds."""
        if hasattr(self._lm, "close"):
            self._lm.close()
        self._lm = None

    def _loaded(self) -> Any:
        if self._lm is None:
            from mergebench.evaluation import backends

            _check_tokenizer(self._weights)
            self._lm = backends.load(
                self._backend,
                self._weights,
                dtype=self._dtype,
                seed=0,
                max_length=_positions(self._weights, self._max_length),
                **self._settings,
            )
        return self._lm

    def _fitted(self, lm: Any, requests: Sequence[Request]) -> list[tuple[str, bool]]:
        """Prompts that leave room for the label, and whether something had to be cut."""
        room = min(self._max_length, int(lm.max_length)) - self._form.max_tokens
        texts = [self._form.ask(request) for request in requests]
        fitted = []
        for request, text, ids in zip(requests, texts, lm.encode(texts), strict=True):
            cut = len(ids) > room
            fitted.append((self._form.ask(self._cut(lm, request, room)) if cut else text, cut))
        return fitted

    def _cut(self, lm: Any, request: Request, room: int) -> Request:
        """The longest beginning of the answer that fits; of the request no more than half of the room is kept."""

        def length(candidate: Request) -> int:
            return len(lm.encode([self._form.ask(candidate)])[0])

        instruction = length(Request("", ""))
        if instruction >= room:
            raise MergebenchError(
                f"the judge {self.name} can hold {room} tokens beside its answer, and its instruction alone takes {instruction}: "
                f"{self._weights} is not a model that can judge with this prompt."
            )
        half = (room + instruction) // 2
        bare = replace(request, response="")
        if length(bare) > half:
            bare = _longest(bare, "context", lambda r: length(replace(r, prompt="")) <= (half + instruction) // 2)
            bare = _longest(bare, "prompt", lambda r: length(r) <= half)
        return _longest(replace(bare, response=request.response), "response", lambda r: length(r) <= room)


def _longest(request: Request, part: str, fits: Callable[[Request], bool]) -> Request:
    """The request with the longest beginning of one part that fits (bisection: tokens grow with characters)."""
    if fits(request):
        return request
    text = getattr(request, part)
    low, high = 0, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(replace(request, **{part: text[:middle]})) else (low, middle)
    return replace(request, **{part: text[:low]})


def _positions(weights: Path, wanted: int) -> int:
    """The positions to use: no more than the model has."""
    declared = read_json(weights / "config.json").get("max_position_embeddings")
    return min(wanted, int(declared)) if declared else wanted


def _check_tokenizer(weights: Path) -> None:
    """A folder with a SentencePiece model alone needs a library that the CPU environment does not have."""
    import importlib.util

    alone = (weights / "tokenizer.model").is_file() and not (weights / "tokenizer.json").is_file()
    if alone and importlib.util.find_spec("sentencepiece") is None:
        raise MergebenchError(
            f"the judge's folder {weights} has tokenizer.model but no tokenizer.json, which takes the package sentencepiece to read; "
            "install it (`pip install sentencepiece protobuf`), or save the tokenizer as tokenizer.json."
        )
