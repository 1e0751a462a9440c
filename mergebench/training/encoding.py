"""Rows as token ids: the prompt in its template, the response with what ends it, and why a row cannot be used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mergebench.errors import MergebenchError
from mergebench.training.templates import TEMPLATES, WHOLE_TEXT, prompt_text

PROMPT_FILLS = "prompt fills the context"
SPECIAL_TOKENS = "special tokens in the prompt"
_MARK = "the response"  # any plain text that no template contains


@dataclass(frozen=True)
class Encoded:
    """One row: `ids` of the prompt and the response, of which the first `prompt_length` have no loss; `cut` did not fit."""

    ids: list[int]
    prompt_length: int
    cut: int


class Encoder:
    """Encodes ``{"prompt", "input"?, "response"}`` rows for one tokenizer whose template is set (`use_template`).

    Prompt and response are tokenised apart, as generation will meet them. The response ends in what the template
    ends an assistant's turn with, and in the end-of-sequence token. A response that passes `max_length` tokens is cut (and
    then has neither, so that the model is not taught to stop there).
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        if tokenizer.eos_token_id is None:
            raise MergebenchError(f"the tokenizer {tokenizer.name_or_path} has no end-of-sequence token; add one.")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - {tokenizer.unk_token_id}
        self._whole_text = any(tokenizer.chat_template == TEMPLATES[name] for name in WHOLE_TEXT)
        plain = self._ids([prompt_text(tokenizer, {"prompt": _MARK})])[0]
        # A tokenizer that begins every text with a token of its own wants it in front of a template that lacks it.
        missing = tokenizer.bos_token_id is not None and tokenizer.bos_token_id not in plain
        self._front = [tokenizer.bos_token_id] if missing and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else []
        self._expected = sum(i in self._special for i in plain)
        self._end = self._turn_end()

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[Encoded | str]:
        """Encode a batch of rows; one that cannot be used gives the reason (`PROMPT_FILLS`, `SPECIAL_TOKENS`)."""
        prompts = self._ids([prompt_text(self.tokenizer, row) for row in rows])
        # What looks like a special token in a response is text: a model must not learn to end, or to begin, inside one.
        responses = self._ids([row["response"] for row in rows], literal=True)
        return [self._joined(self._front + prompt, response) for prompt, response in zip(prompts, responses, strict=True)]

    def _joined(self, prompt: list[int], response: list[int]) -> Encoded | str:
        if sum(i in self._special for i in prompt) != self._expected + len(self._front):
            return SPECIAL_TOKENS
        room = self.max_length - len(prompt)
        if room <= 0:
            return PROMPT_FILLS
        response = response + self._end
        return Encoded(prompt + response[:room], 1 if self._whole_text else len(prompt), max(0, len(response) - room))

    def _ids(self, texts: list[str], *, literal: bool = False) -> list[list[int]]:
        """Token ids of texts; `literal` reads special tokens as the characters that they are written with."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            encoded = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=literal)
            return [list(ids) for ids in encoded["input_ids"]]
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = literal
        try:
            return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
        finally:
            backend.encode_special_tokens = False

    def _turn_end(self) -> list[int]:
        """Tokens after a response: what the template writes after an assistant's message, up to an end of sequence."""
        asked, answered = {"role": "user", "content": _MARK}, {"role": "assistant", "content": _MARK}
        eos = self.tokenizer.eos_token_id
        before = self.tokenizer.apply_chat_template([asked], add_generation_prompt=True, tokenize=False)
        whole = self.tokenizer.apply_chat_template([asked, answered], tokenize=False)
        if not whole.startswith(before + _MARK):  # the template rewrites earlier turns
            return [eos]
        end = self._ids([whole.removeprefix(before + _MARK)])[0]
        return end[: end.index(eos) + 1] if eos in end else [*end, eos]
