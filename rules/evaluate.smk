"""Scores: one rule per group of benchmarks that share a process, one file per benchmark."""

for group in PLAN.groups:

    rule:
        name:
            f"evaluate_{group.name}"
        input:
            unpack(model("{model}")),
            data=[PLAN.data(b) for b in group.benchmarks],
        output:
            scores=[f"{RESULTS}/scores/{{base}}/{{model}}/{b}.{s}" for b in group.benchmarks for s in ("json", "items.parquet")],
            cost=f"{RESULTS}/costs/evaluate/{{base}}/{{model}}/{group.name}.json",
        log:
            f"{RESULTS}/logs/evaluate/{{base}}/{{model}}/{group.name}.log",
        benchmark:
            f"{RESULTS}/benchmarks/evaluate/{{base}}/{{model}}/{group.name}.jsonl"
        wildcard_constraints:
            model=plan.alternatives(group.models),
        conda:
            MODEL_ENVIRONMENT
        threads: need("evaluate", "threads", group=group.name)
        resources:
            nodes=1,
            gpu=need("evaluate", "gpu", group=group.name),
            mem_mb=need("evaluate", "mem_mb", group=group.name),
            runtime=need("evaluate", "runtime", group=group.name),
        params:
            spec=spec("evaluate", group=group.name),
            state=STATE,
        shell:
            "exec mergebench run evaluate --threads {threads} --state {params.state} --spec {params.spec:q}"
            " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} gpu={resources.gpu} threads={threads}"
            " --input weights={input.weights} data={input.data}"
            " --output cost={output.cost} --output-files {output.scores} 2> {log}"
