"""Specialists and the multitask model by supervised fine-tuning, and GRPO on top for some mathematics specialists."""


rule train_specialist:
    input:
        unpack(model("base")),
        data=lambda wildcards: PLAN.training_data(wildcards.model),
    output:
        manifest=f"{RESULTS}/models/{{base}}/{{model}}/manifest.json",
        weights=directory(f"{RESULTS}/models/{{base}}/{{model}}/weights"),
        losses=f"{RESULTS}/models/{{base}}/{{model}}/losses.jsonl",
        cost=f"{RESULTS}/costs/train/{{base}}/{{model}}.json",
    log:
        f"{RESULTS}/logs/train/{{base}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{base}}/{{model}}.jsonl"
    wildcard_constraints:
        model=plan.alternatives([*PLAN.specialists, "sft_math"]),
    priority: 10
    conda:
        MODEL_ENVIRONMENT
    threads: need("train", "threads")
    resources:
        nodes=need("train", "nodes"),
        tasks=need("train", "tasks"),
        tasks_per_gpu=0,
        mpi=need("train", "mpi"),
        gpu=need("train", "gpu"),
        mem_mb=need("train", "mem_mb"),
        runtime=need("train", "runtime"),
    params:
        spec=spec("train"),
        state=STATE,
    shell:
        "exec mergebench run train --threads {threads} --tasks {resources.tasks} --nodes {resources.nodes}"
        " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} gpu={resources.gpu} threads={threads}"
        " --state {params.state} --spec {params.spec:q}"
        " --input base={input.weights} data={input.data}"
        " --output manifest={output.manifest} weights={output.weights} log={output.losses} cost={output.cost} 2> {log}"


use rule train_specialist as train_multitask with:
    wildcard_constraints:
        model="multitask",
    priority: 20


ruleorder: train_grpo > train_specialist


rule train_grpo:
    input:
        unpack(model("base")),
        initial_manifest=f"{RESULTS}/models/{{base}}/sft_math/manifest.json",
        initial=ancient(f"{RESULTS}/models/{{base}}/sft_math/weights"),
        data=PLAN.data(plan.GRPO_DATA),
    output:
        manifest=f"{RESULTS}/models/{{base}}/{{model}}/manifest.json",
        weights=directory(f"{RESULTS}/models/{{base}}/{{model}}/weights"),
        losses=f"{RESULTS}/models/{{base}}/{{model}}/losses.jsonl",
        cost=f"{RESULTS}/costs/train/{{base}}/{{model}}.json",
    log:
        f"{RESULTS}/logs/train_grpo/{{base}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_grpo/{{base}}/{{model}}.jsonl"
    wildcard_constraints:
        base=plan.alternatives(PLAN.grpo_bases),
        model="specialist_math",
    priority: 20
    conda:
        MODEL_ENVIRONMENT
    threads: need("train", "threads")
    resources:
        nodes=need("train", "nodes"),
        tasks=need("train", "tasks"),
        tasks_per_gpu=0,
        mpi=need("train", "mpi"),
        gpu=need("train", "gpu"),
        mem_mb=need("train", "mem_mb"),
        runtime=need("train", "runtime"),
    params:
        spec=spec("train"),
        state=STATE,
    shell:
        "exec mergebench run train --threads {threads} --tasks {resources.tasks} --nodes {resources.nodes}"
        " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} gpu={resources.gpu} threads={threads}"
        " --state {params.state} --spec {params.spec:q}"
        " --input base={input.weights} init={input.initial} grpo_data={input.data}"
        " --output manifest={output.manifest} weights={output.weights} log={output.losses} cost={output.cost} 2> {log}"
