"""The grid of a method, scored on the surrogates by writing each candidate's weights into one live model."""


rule tune:
    input:
        unpack(merge_inputs),
        surrogates=[PLAN.data(s) for names in PLAN.surrogates.values() for s in names],
        references=lambda wildcards: PLAN.surrogate_references(wildcards.base),
        judge_manifest=PLAN.tuning_judge("manifest.json"),
        judge=ancient(PLAN.tuning_judge("weights")),
    output:
        search=f"{RESULTS}/tuning/{{base}}/{{method}}/search.parquet",
        best=f"{RESULTS}/tuning/{{base}}/{{method}}/best.yaml",
        cost=f"{RESULTS}/costs/tune/{{base}}/{{method}}.json",
    log:
        f"{RESULTS}/logs/tune/{{base}}/{{method}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tune/{{base}}/{{method}}.jsonl"
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
        " --output search={output.search} best={output.best} cost={output.cost} 2> {log}"
