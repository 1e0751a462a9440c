"""Run several training jobs one after the other in the same processes, which takes their imports once.

``python -m tests.unit.training.session CASES.json``, once for each process, with the variables that `mergebench.launch` sets.
A case is ``{"name", "spec", "inputs", "folder", "interrupt"?: [rank, step]}``: its outputs go to the folder, where
``<name>.<rank>.json`` says how it ended and which rows and prompts it saw in each step.
"""

import gc
import itertools
import json
import os
import signal
import sys
from pathlib import Path


def main(path: str) -> None:
    import trl

    from mergebench.artifacts import Interrupted, Job
    from mergebench.training import distributed, grpo, run
    from mergebench.training.watch import Watch

    distributed.leave = distributed.wait_for_all  # the next case goes on with the same group
    seen: dict[str, list] = {}
    interrupt: list[int] = []

    def noted(trainer, model, inputs, *rest, step=trl.SFTTrainer.training_step):
        ids, starts = inputs["input_ids"].flatten().tolist(), inputs.get("position_ids")
        if starts is None:
            kept = inputs["attention_mask"].tolist()
            rows = [[i for i, k in zip(row, mask, strict=True) if k] for row, mask in zip(inputs["input_ids"].tolist(), kept, strict=True)]
        else:
            edges = [*(starts[0] == 0).nonzero().flatten().tolist(), len(ids)]
            rows = [ids[a:b] for a, b in itertools.pairwise(edges)]
        seen.setdefault("rows", []).extend([trainer.state.global_step, row] for row in rows)
        return step(trainer, model, inputs, *rest)

    def rewarded(prompts, trainer_state=None, reward=grpo.accuracy_reward, **rest):
        seen.setdefault("prompts", []).extend([trainer_state.global_step, prompt[0]["content"]] for prompt in prompts)
        return reward(prompts=prompts, **rest)

    def stepped(self, args, state, control, report=Watch.on_step_end, **rest):
        report(self, args, state, control, **rest)
        if interrupt == [distributed.rank(), state.global_step]:
            os.kill(os.getpid(), signal.SIGUSR1)

    trl.SFTTrainer.training_step, grpo.accuracy_reward, Watch.on_step_end = noted, rewarded, stepped

    for case in json.loads(Path(path).read_text()):
        seen.clear()
        interrupt[:] = case.get("interrupt", [])
        folder = Path(case["folder"])
        inputs = {name: [Path(p) for p in paths] for name, paths in case["inputs"].items()}
        outputs = {"weights": folder / "weights", "log": folder / "losses.jsonl"}
        job = Job("train", case["spec"], inputs, outputs, folder / "state")
        job.state.mkdir(parents=True, exist_ok=True)
        record = {"status": 0}
        try:
            record["facts"] = run.run(job)
        except Interrupted as end:
            record["status"] = end.code
        for name, staged in job.staged.items():
            staged.replace(outputs[name])
        (folder / f"{case['name']}.{distributed.rank()}.json").write_text(json.dumps(record | {"seen": seen}))
        _forget()
    if distributed.world_size() > 1:
        import torch.distributed

        torch.distributed.destroy_process_group()


def _forget() -> None:
    """Take back what libraries keep of a run in this process."""
    from accelerate.state import AcceleratorState, GradientState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    gc.collect()
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    unset_hf_deepspeed_config()
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)


if __name__ == "__main__":
    main(sys.argv[1])
