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
            "../envs/cpu.yaml"
        threads: need("evaluate", "threads")
        resources:
            nodes=1,
            gpu=need("evaluate", "gpu"),
            mem_mb=need("evaluate", "mem_mb"),
            runtime=need("evaluate", "runtime"),
        params:
            spec=spec("evaluate", group=group.name),
            state=STATE,
        shell:
            "mergebench run evaluate --threads {threads} --state {params.state} --spec {params.spec:q}"
            " --input weights={input.weights} data={input.data}"
            " --output cost={output.cost} --output-files {output.scores} 2> {log}"
