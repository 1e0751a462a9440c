"""Base models and data: the only jobs that may use the network, so they run where the workflow runs."""


rule fetch_base:
    output:
        manifest=f"{RESULTS}/models/{{base}}/base/manifest.json",
        weights=directory(f"{RESULTS}/models/{{base}}/base/weights"),
        cost=f"{RESULTS}/costs/fetch_base/{{base}}.json",
    log:
        f"{RESULTS}/logs/fetch_base/{{base}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch_base/{{base}}.jsonl"
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        spec=spec("fetch_base"),
        state=STATE,
    shell:
        "exec mergebench run fetch_base --online --state {params.state} --spec {params.spec:q}"
        " --output manifest={output.manifest} weights={output.weights} cost={output.cost} 2> {log}"


rule fetch_judge:
    output:
        manifest=f"{RESULTS}/judges/{{judge}}/manifest.json",
        weights=directory(f"{RESULTS}/judges/{{judge}}/weights"),
        cost=f"{RESULTS}/costs/fetch_judge/{{judge}}.json",
    log:
        f"{RESULTS}/logs/fetch_judge/{{judge}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch_judge/{{judge}}.jsonl"
    wildcard_constraints:
        judge=plan.alternatives(plan.catalogue.judges()),
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        spec=spec("fetch_judge"),
        state=STATE,
    shell:
        "exec mergebench run fetch_judge --online --state {params.state} --spec {params.spec:q}"
        " --output manifest={output.manifest} weights={output.weights} cost={output.cost} 2> {log}"


rule fetch_data:
    input:
        lambda wildcards: PLAN.local_files(wildcards.dataset),
    output:
        manifest=f"{RESULTS}/data/{{dataset}}/manifest.json",
        rows=f"{RESULTS}/data/{{dataset}}/rows.jsonl",
        examples=f"{RESULTS}/data/{{dataset}}/examples.jsonl",
        support=directory(f"{RESULTS}/data/{{dataset}}/support"),
        cost=f"{RESULTS}/costs/fetch_data/{{dataset}}.json",
    log:
        f"{RESULTS}/logs/fetch_data/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch_data/{{dataset}}.jsonl"
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        spec=spec("prepare"),
        state=STATE,
    shell:
        "exec mergebench run prepare --online --state {params.state} --spec {params.spec:q}"
        " --output manifest={output.manifest} rows={output.rows} examples={output.examples}"
        " support={output.support} cost={output.cost} 2> {log}"


rule fetch_training_data:
    input:
        lambda wildcards: PLAN.local_files(wildcards.training_set),
    output:
        manifest=f"{RESULTS}/data/{{training_set}}/manifest.json",
        train=f"{RESULTS}/data/{{training_set}}/train.jsonl",
        calibration=f"{RESULTS}/data/{{training_set}}/calibration.jsonl",
        cost=f"{RESULTS}/costs/fetch_data/{{training_set}}.json",
    log:
        f"{RESULTS}/logs/fetch_training_data/{{training_set}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch_training_data/{{training_set}}.jsonl"
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        spec=spec("prepare"),
        state=STATE,
    shell:
        "exec mergebench run prepare --online --state {params.state} --spec {params.spec:q}"
        " --output manifest={output.manifest} train={output.train} calibration={output.calibration} cost={output.cost} 2> {log}"
