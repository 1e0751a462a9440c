"""Task vectors: an audit of the specialist against its base, and the exact magnitude spectrum of their difference."""


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
