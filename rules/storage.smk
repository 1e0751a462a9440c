"""A disk budget: bases are admitted to merging in turn, and weights of merged models dropped once nothing is asked of them."""


# `merge` takes what this writes by its existence only, so that no change of the budget makes a merged model stale.
rule admit:
    input:
        admission,
    output:
        touch(f"{RESULTS}/admitted/{{base}}"),
    localrule: True


rule drop_weights:
    input:
        asked=lambda wildcards: PLAN.model_asked(wildcards.base, f"merged_{wildcards.method}"),
        manifest=f"{RESULTS}/models/{{base}}/merged_{{method}}/manifest.json",
        weights=ancient(f"{RESULTS}/models/{{base}}/merged_{{method}}/weights"),
    output:
        record=f"{RESULTS}/models/{{base}}/merged_{{method}}/dropped.json",
        cost=f"{RESULTS}/costs/drop_weights/{{base}}/{{method}}.json",
    log:
        f"{RESULTS}/logs/drop_weights/{{base}}/{{method}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/drop_weights/{{base}}/{{method}}.jsonl"
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        spec=spec("drop"),
        state=STATE,
    shell:
        "exec mergebench run drop --state {params.state} --spec {params.spec:q}"
        " --input weights={input.weights}"
        " --output record={output.record} cost={output.cost} 2> {log}"
