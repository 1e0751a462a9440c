"""Calibration statistics of a specialist on its own domain: Fisher, Gram matrices, trained masks."""


rule statistics:
    input:
        unpack(model("base")),
        specialist_manifest=f"{RESULTS}/models/{{base}}/specialist_{{domain}}/manifest.json",
        specialist=ancient(f"{RESULTS}/models/{{base}}/specialist_{{domain}}/weights"),
        data=f"{RESULTS}/data/train_{{domain}}/manifest.json",
        hits=lambda wildcards: PLAN.uncalibrated(f"train_{wildcards.domain}"),
    output:
        manifest=f"{RESULTS}/statistics/{{base}}/{{domain}}/{{kind}}/manifest.json",
        statistics=f"{RESULTS}/statistics/{{base}}/{{domain}}/{{kind}}/statistics.safetensors",
        cost=f"{RESULTS}/costs/statistics/{{base}}/{{domain}}/{{kind}}.json",
    log:
        f"{RESULTS}/logs/statistics/{{base}}/{{domain}}/{{kind}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/statistics/{{base}}/{{domain}}/{{kind}}.jsonl"
    conda:
        MODEL_ENVIRONMENT
    threads: need("statistics", "threads")
    resources:
        nodes=need("statistics", "nodes"),
        tasks=need("statistics", "tasks"),
        tasks_per_gpu=0,
        mpi=need("statistics", "mpi"),
        gpu=need("statistics", "gpu"),
        mem_mb=need("statistics", "mem_mb"),
        runtime=need("statistics", "runtime"),
        # How the work is divided and saved. Resources, unlike parameters, make no result stale.
        batch_rows=PLAN.preset.statistics.execution.batch_rows,
        group_mb=PLAN.preset.statistics.execution.group_mb,
        save_seconds=PLAN.preset.statistics.execution.save_seconds,
    params:
        spec=spec("statistics"),
        state=STATE,
    shell:
        "exec mergebench run statistics --threads {threads} --tasks {resources.tasks} --nodes {resources.nodes}"
        " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} gpu={resources.gpu} threads={threads}"
        " batch_rows={resources.batch_rows} group_mb={resources.group_mb} save_seconds={resources.save_seconds}"
        " --state {params.state} --spec {params.spec:q}"
        " --input base={input.weights} specialist={input.specialist} data={input.data} hits={input.hits}"
        " --output manifest={output.manifest} {wildcards.kind}={output.statistics} cost={output.cost} 2> {log}"
