"""Specialists and the multitask model by supervised fine-tuning, GRPO on top for some, and specialists that are imported instead."""


rule decontaminate:
    input:
        data=lambda wildcards: PLAN.data(wildcards.training_set),
        benchmarks=[PLAN.data(dataset) for dataset in PLAN.benchmark_datasets],
    output:
        manifest=f"{RESULTS}/decontamination/{{training_set}}/manifest.json",
        report=f"{RESULTS}/decontamination/{{training_set}}/report.csv",
        summary=f"{RESULTS}/decontamination/{{training_set}}/report.md",
        hits=f"{RESULTS}/decontamination/{{training_set}}/hits.jsonl",
        cost=f"{RESULTS}/costs/decontaminate/{{training_set}}.json",
    log:
        f"{RESULTS}/logs/decontaminate/{{training_set}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/decontaminate/{{training_set}}.jsonl"
    conda:
        "../envs/cpu.yaml"
    threads: need("decontaminate", "threads")
    resources:
        nodes=1,
        mem_mb=need("decontaminate", "mem_mb"),
        runtime=need("decontaminate", "runtime"),
    params:
        spec=spec("decontaminate"),
        state=STATE,
    shell:
        "exec mergebench run decontaminate --threads {threads} --state {params.state} --spec {params.spec:q}"
        " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} threads={threads}"
        " --input data={input.data} benchmarks={input.benchmarks}"
        " --output manifest={output.manifest} report={output.report} summary={output.summary} hits={output.hits}"
        " cost={output.cost} 2> {log}"


rule tokenise:
    input:
        unpack(tokenizer),
        data=lambda wildcards: PLAN.data(wildcards.training_set),
        hits=lambda wildcards: PLAN.hits(wildcards.training_set),
    output:
        manifest=f"{RESULTS}/tokens/{{key}}/{{training_set}}/manifest.json",
        card=f"{RESULTS}/tokens/{{key}}/{{training_set}}/card.json",
        shards=directory(f"{RESULTS}/tokens/{{key}}/{{training_set}}/shards"),
        cost=f"{RESULTS}/costs/tokenise/{{key}}/{{training_set}}.json",
    log:
        f"{RESULTS}/logs/tokenise/{{key}}/{{training_set}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tokenise/{{key}}/{{training_set}}.jsonl"
    priority: 10
    conda:
        "../envs/cpu.yaml"
    threads: need("tokenise", "threads")
    resources:
        nodes=1,
        mem_mb=need("tokenise", "mem_mb"),
        runtime=need("tokenise", "runtime"),
    params:
        spec=spec("tokenise"),
        state=STATE,
    shell:
        "exec mergebench run tokenise --threads {threads} --state {params.state} --spec {params.spec:q}"
        " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} threads={threads}"
        " --input weights={input.weights} data={input.data} hits={input.hits}"
        " --output manifest={output.manifest} card={output.card} shards={output.shards} cost={output.cost} 2> {log}"


rule import_specialist:
    input:
        unpack(model("base")),
    output:
        manifest=f"{RESULTS}/models/{{base}}/{{model}}/manifest.json",
        weights=directory(f"{RESULTS}/models/{{base}}/{{model}}/weights"),
        cost=f"{RESULTS}/costs/import/{{base}}/{{model}}.json",
    log:
        f"{RESULTS}/logs/import/{{base}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/import/{{base}}/{{model}}.jsonl"
    wildcard_constraints:
        base=plan.pairs(PLAN.imports),
        model=plan.alternatives(PLAN.specialists),
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        spec=spec("import"),
        state=STATE,
    shell:
        "exec mergebench run import --online --state {params.state} --spec {params.spec:q} --input base={input.weights}"
        " --output manifest={output.manifest} weights={output.weights} cost={output.cost} 2> {log}"


rule train_specialist:
    input:
        unpack(model("base")),
        tokens=lambda wildcards: PLAN.training_tokens(wildcards.base, wildcards.model),
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
        base=plan.pairs(PLAN.supervised),
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
        " --input base={input.weights} tokens={input.tokens}"
        " --output manifest={output.manifest} weights={output.weights} log={output.losses} cost={output.cost} 2> {log}"


use rule train_specialist as train_multitask with:
    wildcard_constraints:
        base=plan.alternatives(PLAN.bases),
        model="multitask",
    priority: 20


rule train_grpo:
    input:
        unpack(model("base")),
        initial_manifest=f"{RESULTS}/models/{{base}}/sft_math/manifest.json",
        initial=ancient(f"{RESULTS}/models/{{base}}/sft_math/weights"),
        data=PLAN.data(plan.GRPO_DATA),
        hits=PLAN.hits(plan.GRPO_DATA),
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
        " --input base={input.weights} init={input.initial} grpo_data={input.data} hits={input.hits}"
        " --output manifest={output.manifest} weights={output.weights} log={output.losses} cost={output.cost} 2> {log}"
