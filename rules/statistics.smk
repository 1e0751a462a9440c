"""Calibration statistics of a specialist on its own domain: Fisher, Gram matrices, trained masks."""


rule statistics:
    input:
        unpack(model("base")),
        specialist_manifest=f"{RESULTS}/models/{{base}}/specialist_{{domain}}/manifest.json",
        specialist=ancient(f"{RESULTS}/models/{{base}}/specialist_{{domain}}/weights"),
        data=f"{RESULTS}/data/train_{{domain}}/manifest.json",
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
        nodes=1,
        gpu=need("statistics", "gpu"),
        mem_mb=need("statistics", "mem_mb"),
        runtime=need("statistics", "runtime"),
    params:
        spec=spec("statistics"),
        state=STATE,
    shell:
        "exec mergebench run statistics --threads {threads} --state {params.state} --spec {params.spec:q}"
        " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} gpu={resources.gpu} threads={threads}"
        " --input base={input.weights} specialist={input.specialist} data={input.data}"
        " --output manifest={output.manifest} {wildcards.kind}={output.statistics} cost={output.cost} 2> {log}"
