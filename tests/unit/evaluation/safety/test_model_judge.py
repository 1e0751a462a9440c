"""A language model as judge: prompts that fit, one engine, and labels from a real one."""

from pathlib import Path

import pytest

from mergebench.errors import MergebenchError
from mergebench.evaluation.safety import Label, Request, judges
from mergebench.evaluation.safety.model_judge import ModelJudge
from mergebench.evaluation.safety.wildguard import FORM
from tests.unit.evaluation.safety.handmade import COMPLIANCE, REFUSAL, write_judge


class Scripted:
    """A language model of one token per word that says what it is told and remembers its prompts."""

    max_length = 200

    def __init__(self, answer: str = REFUSAL) -> None:
        self.answer, self.prompts, self.settings, self.closed = answer, [], [], 0
        self.progress = None

    def encode(self, texts):
        return [text.split() for text in texts]

    def generate_until(self, requests):
        self.prompts += [request.args[0] for request in requests]
        self.settings += [request.args[1] for request in requests]
        return [self.answer] * len(requests)

    def close(self):
        self.closed += 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_judge(tmp_path_factory.mktemp("judge") / "weights")


def test_a_real_model_judges_by_what_the_answer_says(folder):
    judge = judges.create("wildguard", weights=folder, dtype="float32")
    found = judge.judge([Request("harm", "I cannot."), Request("harm", "Sure, so."), Request("cannot", ""), Request("harm", " \n")])
    assert [(label.raw, label.refused, label.harmful, label.empty) for label in found] == [
        (REFUSAL, True, False, False),
        (COMPLIANCE, False, True, False),
        (REFUSAL, True, False, True),
        (COMPLIANCE, False, True, True),
    ]
    assert judge.engine()["backend"] == "transformers"
    judge.close()


def test_a_judge_is_not_loaded_for_nothing(folder, monkeypatch):
    monkeypatch.setattr("mergebench.evaluation.backends.load", lambda *a, **k: pytest.fail("loaded"))
    judge = judges.create("wildguard", weights=folder)
    assert judge.judge([]) == []
    assert judge.facts()["weights_digest"]
    assert judge.engine() == {}


def test_it_is_asked_greedily_for_one_short_answer(folder):
    lm = Scripted()
    ModelJudge(FORM, folder, lm=lm).judge([Request("a", "b")])
    assert lm.settings == [{"until": [], "max_gen_toks": 32, "do_sample": False}]
    assert lm.prompts == [FORM.ask(Request("a", "b"))]


ROOM = 150 - FORM.max_tokens
INSTRUCTION = len(FORM.ask(Request("", "")).split())


def prompted(folder: Path, request: Request) -> tuple[str, Label]:
    lm = Scripted()
    [label] = ModelJudge(FORM, folder, lm=lm, max_length=150).judge([request])
    return lm.prompts[0], label


def test_what_fits_is_not_cut(folder):
    words = ROOM - INSTRUCTION - 1
    prompt, label = prompted(folder, Request("ask", " ".join(["w"] * words)))
    assert (len(prompt.split()), label.cut) == (ROOM, False)


def test_an_answer_that_is_too_long_loses_its_end_and_the_instruction_stays_whole(folder):
    words = [f"w{number}" for number in range(5000)]
    prompt, label = prompted(folder, Request("ask", " ".join(words)))
    assert label.cut
    assert len(prompt.split()) == ROOM
    before, after = FORM.template.split("{response}")
    assert prompt.startswith(before.format(prompt="ask") + "w0 w1 ")
    assert prompt.endswith(after)


def test_a_request_that_is_too_long_leaves_half_of_the_room_to_the_answer(folder):
    prompt, label = prompted(folder, Request("ask " * 4000, "word " * 4000))
    assert label.cut
    assert len(prompt.split()) == ROOM
    assert prompt.count("ask") == pytest.approx((ROOM - INSTRUCTION) / 2, abs=2)
    assert prompt.startswith("<|user|>\n[INST]")
    assert prompt.endswith("<|assistant|>\n")


def test_a_context_that_is_too_long_leaves_room_for_the_request(folder):
    prompt, label = prompted(folder, Request("please " * 5, "yes", "page " * 4000))
    assert (label.cut, prompt.count("please"), prompt.count("yes")) == (True, 5, 1)
    assert len(prompt.split()) <= ROOM


def test_a_model_that_cannot_hold_the_instruction_is_refused(folder):
    with pytest.raises(MergebenchError, match=r"can hold 18 tokens beside its answer, and its instruction alone takes \d+"):
        ModelJudge(FORM, folder, lm=Scripted(), max_length=50).judge([Request("a", "b")])


def test_the_engine_gets_no_more_positions_than_the_model_has(folder, monkeypatch):
    seen = {}
    monkeypatch.setattr("mergebench.evaluation.backends.load", lambda *a, **k: seen.update(k) or Scripted())
    judges.create("wildguard", weights=folder, dtype="bfloat16", batch_tokens=7).judge([Request("a", "b")])
    assert seen == {"dtype": "bfloat16", "seed": 0, "max_length": 512, "batch_tokens": 7}


def test_closing_frees_the_engine(folder):
    lm = Scripted()
    judge = ModelJudge(FORM, folder, lm=lm)
    judge.close()
    judge.close()
    assert lm.closed == 1


def test_other_weights_another_prompt_or_dtype_are_another_judge(folder, tmp_path):
    write_judge(tmp_path / "weights")
    (tmp_path / "weights/model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4] + b"\0\0\0\1")
    made = [
        judges.create("wildguard", weights=folder),
        judges.create("wildguard", weights=tmp_path / "weights"),
        judges.create("wildguard", weights=folder, dtype="float32"),
        judges.create("wildguard", weights=folder, max_length=1024),
        judges.create("harmbench", weights=folder),
    ]
    assert len({str(judge.facts()) for judge in made}) == len(made)
    assert judges.create("wildguard", weights=folder, batch_tokens=5).facts() == made[0].facts()


def test_a_judge_without_weights_is_explained(tmp_path):
    with pytest.raises(MergebenchError, match="the judge wildguard is a model, and no folder with its weights was given"):
        judges.create("wildguard")
    with pytest.raises(MergebenchError, match=r"has no \*\.safetensors file"):
        judges.create("wildguard", weights=tmp_path)


def test_a_tokenizer_that_needs_sentencepiece_is_explained(folder, tmp_path, monkeypatch):
    import importlib.util
    import shutil

    weights = tmp_path / "weights"
    shutil.copytree(folder, weights)
    (weights / "tokenizer.json").rename(weights / "tokenizer.model")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MergebenchError, match=r"tokenizer\.model but no tokenizer\.json, which takes the package sentencepiece"):
        judges.create("wildguard", weights=weights).judge([Request("a", "b")])


def test_a_mistral_tokenizer_gives_one_bos_and_no_leading_blank(tmp_path):
    """A byte-fallback BPE with SentencePiece's underscores, saved as those of Mistral and Llama 2 are."""
    import json

    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    from mergebench.evaluation.backends.tokens import Encoder

    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    inner.train_from_iterator([REFUSAL, COMPLIANCE, "N/A"] * 3, trainers.BpeTrainer(vocab_size=600, special_tokens=special))
    inner.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "legacy": True}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mistral"}))
    encoder = Encoder.from_folder(tmp_path)
    [ids] = encoder.encode([FORM.ask(Request("Häuser & 🏠", "no"))])
    assert ids[0] == encoder.bos == 1
    assert ids.count(1) == 1
    [answer] = encoder.decode([encoder.encode([REFUSAL])[0]])
    assert FORM.read(answer) == FORM.read(REFUSAL)
