"""Task vectors: an audit of the specialist against its base, the exact magnitude spectrum of their difference, and how all of a base relate."""


rule vectors:
    input:
        unpack(model("base")),
        specialist_manifest=f"{RESULTS}/models/{{base}}/specialist_{{domain}}/manifest.json",
        specialist=ancient(f"{RESULTS}/models/{{base}}/specialist_{{domain}}/weights"),
    output:
        manifest=f"{RESULTS}/vectors/{{base}}/{{domain}}/manifest.json",
        spectrum=f"{RESULTS}/vectors/{{base}}/{{domain}}/spectrum.npz",
        cost=f"{RESULTS}/costs/vectors/{{base}}/{{domain}}.json",
    log:
        f"{RESULTS}/logs/vectors/{{base}}/{{domain}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/vectors/{{base}}/{{domain}}.jsonl"
    conda:
        "../envs/cpu.yaml"
    threads: need("vectors", "threads")
    resources:
        nodes=1,
        mem_mb=need("vectors", "mem_mb"),
        runtime=need("vectors", "runtime"),
    params:
        spec=spec("vectors"),
        state=STATE,
    shell:
        "exec mergebench run vectors --threads {threads} --state {params.state} --spec {params.spec:q}"
        " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} threads={threads}"
        " --input base={input.weights} specialist={input.specialist}"
        " --output manifest={output.manifest} spectrum={output.spectrum} cost={output.cost} 2> {log}"


rule interference:
    input:
        unpack(model("base")),
        specialist_manifests=lambda wildcards: [f"{PLAN.model(wildcards.base, m)}/manifest.json" for m in PLAN.specialists],
        specialists=lambda wildcards: ancient([f"{PLAN.model(wildcards.base, m)}/weights" for m in PLAN.specialists]),
        spectra=lambda wildcards: PLAN.measured(wildcards.base),
    output:
        manifest=f"{RESULTS}/vectors/{{base}}/manifest.json",
        interference=f"{RESULTS}/vectors/{{base}}/interference.parquet",
        cost=f"{RESULTS}/costs/interference/{{base}}.json",
    log:
        f"{RESULTS}/logs/interference/{{base}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/interference/{{base}}.jsonl"
    conda:
        "../envs/cpu.yaml"
    threads: need("interference", "threads")
    resources:
        nodes=1,
        mem_mb=need("interference", "mem_mb"),
        runtime=need("interference", "runtime"),
    params:
        spec=spec("interference"),
        state=STATE,
    shell:
        "exec mergebench run interference --threads {threads} --state {params.state} --spec {params.spec:q}"
        " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} threads={threads}"
        " --input base={input.weights} specialists={input.specialists} spectra={input.spectra}"
        " --output manifest={output.manifest} interference={output.interference} cost={output.cost} 2> {log}"
