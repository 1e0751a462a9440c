"""From texts to token ids, with the beginning-of-sequence token (BOS) where it belongs."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError

CACHE = 200_000
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "spiece.model")
PROBE = "Question: Which city?\nAnswer:"


class Encoder:
    """Encodes texts with a `transformers` tokenizer; remembers what it has encoded.

    Attributes:
        tokenizer: the tokenizer, with its chat template where it has one.
        bos: id of the BOS token, or None.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.bos: int | None = tokenizer.bos_token_id
        self._plain: dict[str, list[int]] = {}
        self._vocabulary: dict[str, int] | None = None

    @classmethod
    def from_folder(cls, weights: Path) -> "Encoder":
        """The encoder of a model's folder.

        Raises:
            MergebenchError: the folder has no tokenizer.
        """
        if not any((weights / name).is_file() for name in TOKENIZER_FILES):
            raise MergebenchError(
                f"{weights} has no tokenizer: one of {', '.join(TOKENIZER_FILES)} is expected beside the weights; "
                "copy the tokenizer files of the model's base there."
            )
        from transformers import AutoTokenizer

        return cls(AutoTokenizer.from_pretrained(weights))

    def encode(self, texts: Sequence[str], leading_bos: int = 1) -> list[list[int]]:
        """Token ids of each text.

        One BOS is put in front, where the tokenizer has one, and those that a text itself begins with are kept, up to
        `leading_bos` in all: by default there is exactly one, whether a chat template has written it already or not.
        """
        missing = list({text for text in texts if text not in self._plain})
        if missing:
            if len(self._plain) + len(missing) > CACHE:
                self._plain.clear()
                missing = list(set(texts))
            self._plain.update(zip(missing, self.tokenizer(missing, add_special_tokens=False, verbose=False)["input_ids"], strict=True))
        return [self._with_bos(self._plain[text], leading_bos) for text in texts]

    def _with_bos(self, ids: list[int], leading_bos: int) -> list[int]:
        if self.bos is None:
            return list(ids)
        own = self.leading(ids)
        return [self.bos] * min(own + 1, leading_bos) + ids[own:]

    def leading(self, ids: Sequence[int]) -> int:
        """With how many BOS tokens `ids` begin."""
        return next((place for place, token in enumerate(ids) if token != self.bos), len(ids))

    def keep_end(self, ids: list[int], room: int) -> list[int]:
        """The last `room` tokens, the BOS tokens in front kept and counted."""
        own = min(self.leading(ids), room)
        return ids[:own] + ids[len(ids) - (room - own) :] if room > own else ids[:room]

    def token_ids(self, tokens: Iterable[int | str]) -> frozenset[int]:
        """Ids as they are, and those of the names of tokens that the vocabulary has."""
        tokens = list(tokens)
        if self._vocabulary is None and any(isinstance(token, str) for token in tokens):
            self._vocabulary = self.tokenizer.get_vocab()
        found = [(self._vocabulary or {}).get(token) if isinstance(token, str) else int(token) for token in tokens]
        return frozenset(token for token in found if token is not None)

    def decode(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """Texts of answers, without special tokens."""
        return self.tokenizer.batch_decode([list(answer) for answer in answers], skip_special_tokens=True) if answers else []

    @property
    def template_sha256(self) -> str:
        """Digest of the chat template (of ``None`` where there is none): identifies how prompts are rendered."""
        return hashlib.sha256(str(self.tokenizer.chat_template).encode()).hexdigest()

    def render(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render messages with the chat template; without one, say so."""
        if not self.tokenizer.chat_template:
            raise MergebenchError(
                "apply_chat_template is true, but the model's tokenizer has no chat template; "
                "set evaluation.apply_chat_template to false or add a template to its tokenizer."
            )
        return self.tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def probes(self) -> dict[str, list[int]]:
        """Encoded prompts by what is special about them: nothing, a BOS of their own, one that they may keep, a chat template.

        Raises:
            MergebenchError: one of them does not have as many BOS as it must, all at its beginning.
        """
        cases = [("a plain prompt", PROBE, 1)]
        if self.bos is not None:
            own = self.tokenizer.bos_token + PROBE
            cases += [("a prompt that brings its own BOS", own, 1), ("a prompt that may keep its own BOS", own, 2)]
        if self.tokenizer.chat_template:
            cases.append(("the chat template", self.render([{"role": "user", "content": PROBE}]), 1))
        found = {}
        for kind, text, wanted in cases:
            [ids] = self.encode([text], wanted)
            if self.bos is not None and (ids.count(self.bos) != wanted or self.leading(ids) != wanted):
                raise MergebenchError(
                    f"{kind} is encoded with {ids.count(self.bos)} beginning-of-sequence tokens, {self.tokenizer.bos_token!r}, and not "
                    f"with exactly {wanted} in front; models answer wrongly then: correct the chat template or the tokenizer."
                )
            found[kind] = ids
        return found


def without_trailing_space(context: str, continuation: str) -> tuple[str, str]:
    """Move spaces at the end of the context to the continuation, where a tokenizer expects them.

    Unlike lm-eval's own backends, line breaks stay: a chat template that ends in one would otherwise ask the model
    to predict the end of its own prompt.
    """
    stripped = context.rstrip(" \t")
    return stripped, context[len(stripped) :] + continuation


def cut(text: str, until: Iterable[str]) -> str:
    """What stands before the first stop string."""
    for stop in until:
        text = text.split(stop)[0]
    return text
