"""lm-eval tasks that read their rows from a local ``rows.jsonl`` and are built once for many models."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from mergebench.errors import MergebenchError
from mergebench.evaluation.settings import BenchmarkSetting

TEMPLATED = ("description", "doc_to_text", "doc_to_target")
# Keys of a task file that an override replaces entry by entry instead of as a whole.
MERGED = ("generation_kwargs", "metadata")
EXAMPLES = "examples.jsonl"


class Rows(list[dict[str, Any]]):
    """Rows of a data set with the one attribute of `datasets.Dataset` that lm-eval reads."""

    @property
    def features(self) -> dict[str, None]:
        return dict.fromkeys(self[0])


class LocalTask(ConfigurableTask):
    """A task of ours: a YAML file, rows from a file, and requests that are kept from one model to the next.

    lm-eval compiles a template anew for every document; here each is compiled once. A prompt is one user message: description, worked
    examples, question.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        config = {key: value for key, value in config.items() if key != "class"}
        for key in TEMPLATED:
            if isinstance(config.get(key), str) and "{" in config[key]:
                config[key] = compiled(config[key])
        self._prompt_key: tuple[bool, str] | None = None
        self._shown: dict[Any, str] = {}
        super().__init__(config=config)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        arguments = dataset_kwargs or {}
        rows = read_rows(Path(arguments["data_files"]["test"]))
        self.dataset = {"test": Rows(take(rows, arguments.get("limit"), self.config.metadata.get("group_by")))}
        if self.config.num_fewshot and "examples_by" in self.config.metadata:
            path = Path(arguments["data_files"]["test"]).with_name(EXAMPLES)
            self._examples = read_rows(path) if path.stat().st_size else []

    def build_all_requests(
        self,
        *,
        apply_chat_template: bool = False,
        chat_template: Callable[..., str] | None = None,
        tokenizer_name: str = "",
        **kwargs: Any,
    ) -> None:
        key = (apply_chat_template, tokenizer_name)
        if key == self._prompt_key:
            for instance in self.instances:
                instance.resps, instance.filtered_resps = [], {}
            return
        instances: list[Instance] = []
        for number, doc in enumerate(self.eval_docs):
            context = self.context(doc)
            if apply_chat_template and chat_template is not None:
                context = chat_template([{"role": "user", "content": context}], add_generation_prompt=True)
            built = self.construct_requests(
                doc=doc,
                ctx=context,
                metadata=(self.config.task, number, self.config.repeats),
                apply_chat_template=apply_chat_template,
                chat_template=chat_template,
            )
            instances += built if isinstance(built, list) else [built]
        self._instances, self._prompt_key = instances, key

    def context(self, doc: dict[str, Any]) -> str:
        """What is asked about a document: description, worked examples, question."""
        description = self.config.description
        begin = description(doc) if callable(description) else description or ""
        return f"{begin}{self._worked(doc)}{self.doc_to_text(doc)}"

    def _worked(self, doc: dict[str, Any]) -> str:
        """The worked examples before a document, each with its answer and the delimiter that ends it."""
        shots = self.config.num_fewshot or 0
        if not shots:
            return ""
        field = self.config.metadata.get("examples_by")
        kind = doc[field] if field else None
        if kind not in self._shown:
            samples = self.fewshot_cfg.samples if field is None else [row for row in self._examples if row[field] == kind]
            if len(samples) < shots:
                raise MergebenchError(
                    f"{self.config.task}: shots is {shots}, but {EXAMPLES} has {len(samples)} worked examples of {kind}; lower shots."
                )
            self._shown[kind] = "".join(self._example(sample) for sample in samples[:shots])
        return self._shown[kind]

    def _example(self, doc: dict[str, Any]) -> str:
        answer = self.doc_to_target(doc)
        if isinstance(answer, int):
            answer = self.doc_to_choice(doc)[answer]
        return f"{self.doc_to_text(doc)}{self.config.target_delimiter}{answer}{self.config.fewshot_delimiter}"

    def construct_requests(self, doc: dict[str, Any], ctx: str | list[str], **kwargs: Any) -> list[Instance] | Instance:
        """lm-eval drops the delimiter before a choice behind a chat template; ours keeps it, as answers were trained."""
        return super().construct_requests(doc, ctx, **{**kwargs, "apply_chat_template": False})

    def dump_config(self) -> dict[str, Any]:
        return {"task": self.config.task, "num_fewshot": self.config.num_fewshot}


class UnanswerableTask(LocalTask):
    """SQuAD v2: an answer is generated, and the likelihood of "unanswerable" is asked beside it."""

    def construct_requests(self, doc: dict[str, Any], ctx: str | list[str], **kwargs: Any) -> list[Instance]:
        kwargs.pop("apply_chat_template", None)
        kwargs.pop("chat_template", None)
        refusal = f"{self.config.target_delimiter}unanswerable"
        return [
            Instance(request_type="generate_until", doc=doc, arguments=(ctx, dict(self.config.generation_kwargs)), idx=0, **kwargs),
            Instance(request_type="loglikelihood", doc=doc, arguments=(ctx, refusal), idx=1, **kwargs),
        ]


def load_task(setting: BenchmarkSetting, rows: Path) -> LocalTask:
    """Build the task of a benchmark with a preset's settings applied to its YAML file.

    Args:
        setting: what the preset changes.
        rows: the data set's ``rows.jsonl``.
    """
    config = load_yaml(setting.task_file)
    config["metadata"] = metadata = dict(config["metadata"])
    config = overridden(config, metadata.pop("protocols", {}).get(setting.protocol, {}))
    metadata = config["metadata"]  # the protocol may have replaced entries of it
    forms = metadata.pop("formulations", {})
    config = overridden(config, forms.get(setting.formulation, {}))
    metadata["formulation"] = setting.formulation if forms else None
    metadata["protocol"] = setting.protocol
    metadata["timeout_seconds"] = setting.timeout_seconds or metadata.get("timeout_seconds")
    config["dataset_kwargs"] = {"data_files": {"test": str(rows)}, "limit": setting.limit}
    config["num_fewshot"] = shots = config.get("num_fewshot", 0) if setting.shots is None else setting.shots
    _check_shots(setting, config, shots, rows)
    framed = metadata.pop("with_examples", {})
    if shots:
        config = overridden(config, framed)
    if config["output_type"] == "generate_until":
        config["repeats"] = setting.samples or config.get("repeats", 1)
        config["generation_kwargs"] = _generation(config["generation_kwargs"], setting)
    kind = config.get("class", LocalTask)
    return kind(config=config)


def overridden(config: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A task file's keys with those of a protocol, a formulation or a frame of worked examples in their place."""
    merged = {key: {**config.get(key, {}), **changes[key]} for key in MERGED if key in changes}
    return {**config, **changes, **merged}


def _check_shots(setting: BenchmarkSetting, config: Mapping[str, Any], shots: int, rows: Path) -> None:
    if not shots:
        return
    if "examples_by" in config["metadata"]:
        if not rows.with_name(EXAMPLES).is_file():
            raise MergebenchError(
                f"{setting.benchmark}: shots is {shots}, but {rows.with_name(EXAMPLES)} does not exist: its worked examples are a file of "
                "the data set (for a local source mmlu/dev/*_dev.csv). Set shots to 0, or make the data set again with them."
            )
        return
    examples = len((config.get("fewshot_config") or {}).get("samples", []))
    if shots > examples:
        raise MergebenchError(
            f"{setting.benchmark}: shots is {shots}, but {setting.task_file.name} has {examples} worked examples; "
            "lower shots or add examples to its fewshot_config."
        )


def _generation(defaults: Mapping[str, Any], setting: BenchmarkSetting) -> dict[str, Any]:
    changed = {"max_gen_toks": setting.max_tokens, "temperature": setting.temperature, "top_p": setting.top_p}
    merged = {**defaults, **{key: value for key, value in changed.items() if value is not None}}
    return {**merged, "do_sample": float(merged.get("temperature", 0)) > 0}


def compiled(template: str) -> Callable[[dict[str, Any]], str]:
    """A Jinja template in lm-eval's dialect as a function of a document."""
    parsed = utils.env.from_string(template)

    def render(doc: dict[str, Any]) -> str:
        return parsed.render(**doc)

    return render


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON Lines file; an absent, empty or broken file is an error with its place."""
    try:
        with path.open(encoding="utf-8") as stream:
            rows = [json.loads(line) for line in stream if line.strip()]
    except FileNotFoundError:
        raise MergebenchError(f"{path} does not exist; the data step of this benchmark makes it.") from None
    except json.JSONDecodeError as error:
        raise MergebenchError(f"{path} has a line that is not JSON ({error}); make the data set again.") from None
    if not rows:
        raise MergebenchError(f"{path} has no rows; a benchmark needs at least one.")
    return rows


def take(rows: list[dict[str, Any]], limit: int | None, key: str | None) -> list[dict[str, Any]]:
    """The first `limit` rows in file order, or, with a group key, the first of every group in equal shares."""
    if limit is None or limit >= len(rows):
        return rows
    if key is None:
        return rows[:limit]
    rank: dict[Any, int] = {}
    order = []
    for index, row in enumerate(rows):
        rank[row[key]] = rank.get(row[key], -1) + 1
        order.append((rank[row[key]], index))
    return [rows[index] for index in sorted(index for _, index in sorted(order)[:limit])]


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
