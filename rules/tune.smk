"""The grid of a method, scored on the surrogates by writing each candidate's weights into one live model."""

if PLAN.fused:

    # All methods of a base with one engine start (`tuning.fused`).
    rule tune_base:
        input:
            unpack(merge_inputs),
            surrogates=[PLAN.data(s) for names in PLAN.surrogates.values() for s in names],
            references=lambda wildcards: PLAN.surrogate_references(wildcards.base),
            judge_manifest=PLAN.tuning_judge("manifest.json"),
            judge=ancient(PLAN.tuning_judge("weights")),
        output:
            made=[path for m in PLAN.tuned for path in PLAN.searched("{base}", m)] + PLAN.search_costs("{base}"),
            cost=f"{RESULTS}/costs/tune_base/{{base}}.json",
        log:
            f"{RESULTS}/logs/tune_base/{{base}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/tune_base/{{base}}.jsonl"
        conda:
            MODEL_ENVIRONMENT
        threads: need("tune_base", "threads")
        resources:
            nodes=1,
            gpu=need("tune_base", "gpu"),
            mem_mb=need("tune_base", "mem_mb"),
            runtime=need("tune_base", "runtime"),
        params:
            spec=spec("tune_base"),
            state=STATE,
        shell:
            "exec mergebench run tune_base --threads {threads} --state {params.state} --spec {params.spec:q}"
            " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} gpu={resources.gpu} threads={threads}"
            " --input base={input.base} specialists={input.specialists} spectra={input.spectra} statistics={input.statistics}"
            " calibration={input.calibration} hits={input.hits} data={input.surrogates} references={input.references} judge={input.judge}"
            " --output cost={output.cost} --output-paths {output.made} 2> {log}"

    ruleorder: tune_base > tune


rule tune:
    input:
        unpack(merge_inputs),
        surrogates=[PLAN.data(s) for names in PLAN.surrogates.values() for s in names],
        references=lambda wildcards: PLAN.surrogate_references(wildcards.base),
        judge_manifest=PLAN.tuning_judge("manifest.json"),
        judge=ancient(PLAN.tuning_judge("weights")),
    output:
        search=f"{RESULTS}/tuning/{{base}}/{{method}}/search.parquet",
        outcomes=f"{RESULTS}/tuning/{{base}}/{{method}}/outcomes.parquet",
        curve=f"{RESULTS}/tuning/{{base}}/{{method}}/curve.parquet",
        best=f"{RESULTS}/tuning/{{base}}/{{method}}/best.yaml",
        cost=f"{RESULTS}/costs/tune/{{base}}/{{method}}.json",
    log:
        f"{RESULTS}/logs/tune/{{base}}/{{method}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tune/{{base}}/{{method}}.jsonl"
    wildcard_constraints:
        method=plan.alternatives(PLAN.tuned),
    conda:
        MODEL_ENVIRONMENT
    threads: need("tune", "threads")
    resources:
        nodes=1,
        gpu=need("tune", "gpu"),
        mem_mb=need("tune", "mem_mb"),
        runtime=need("tune", "runtime"),
    params:
        spec=spec("tune"),
        state=STATE,
    shell:
        "exec mergebench run tune --threads {threads} --state {params.state} --spec {params.spec:q}"
        " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} gpu={resources.gpu} threads={threads}"
        " --input base={input.base} specialists={input.specialists} spectra={input.spectra} statistics={input.statistics}"
        " calibration={input.calibration} hits={input.hits} data={input.surrogates} references={input.references} judge={input.judge}"
        " --output search={output.search} outcomes={output.outcomes} curve={output.curve} best={output.best} cost={output.cost}"
        " 2> {log}"
