"""Tables and figures, from score records, cost records, search logs and losses only."""


rule analyse:
    input:
        scores=PLAN.scores,
        costs=PLAN.costs,
        searches=PLAN.searches,
        winners=[path for b in PLAN.bases for m in PLAN.tuned for path in PLAN.best(b, m)],
        losses=PLAN.losses,
        merges=PLAN.merges,
        surrogates=[s for b in PLAN.bases for s in PLAN.surrogate_references(b)],
        interference=[path for b in PLAN.bases for path in PLAN.interference(b)],
    output:
        cost=f"{RESULTS}/costs/analyse.json",
        reported=[
            report(
                r.path,
                caption=f"captions/{r.caption}.rst",
                category=r.category,
                labels=r.labels,
            )
            for r in PLAN.reported
        ],
        printed=PLAN.printed,
    log:
        f"{RESULTS}/logs/analyse.log",
    benchmark:
        f"{RESULTS}/benchmarks/analyse.jsonl"
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        spec=spec("analyse"),
        state=STATE,
        inputs=globs(analysed.INPUTS),
    shell:
        "exec mergebench run analyse --state {params.state} --spec {params.spec:q}"
        " --glob {params.inputs}"
        " --output cost={output.cost} --output-files {output.reported} {output.printed} 2> {log}"
