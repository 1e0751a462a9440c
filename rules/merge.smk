"""Merged models: the winning candidate of a method, written as a checkpoint; its other seeds; controls."""


rule merge:
    input:
        unpack(merge_inputs),
        best=lambda wildcards: PLAN.best(wildcards.base, PLAN.merged[wildcards.method].method),
        admitted=ancient(f"{RESULTS}/admitted/{{base}}"),
    output:
        manifest=f"{RESULTS}/models/{{base}}/merged_{{method}}/manifest.json",
        weights=directory(f"{RESULTS}/models/{{base}}/merged_{{method}}/weights"),
        cost=f"{RESULTS}/costs/merge/{{base}}/{{method}}.json",
    log:
        f"{RESULTS}/logs/merge/{{base}}/{{method}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/merge/{{base}}/{{method}}.jsonl"
    conda:
        MERGE_ENVIRONMENT
    threads: need("merge", "threads")
    resources:
        nodes=1,
        gpu=need("merge", "gpu"),
        mem_mb=need("merge", "mem_mb"),
        runtime=need("merge", "runtime"),
    params:
        spec=spec("merge"),
        state=STATE,
    shell:
        "exec mergebench run merge --threads {threads} --state {params.state} --spec {params.spec:q}"
        " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} gpu={resources.gpu} threads={threads}"
        " --input base={input.base} specialists={input.specialists} spectra={input.spectra} statistics={input.statistics}"
        " calibration={input.calibration} hits={input.hits} best={input.best}"
        " --output manifest={output.manifest} weights={output.weights} cost={output.cost} 2> {log}"
