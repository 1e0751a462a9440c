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
    shell:
        "exec mergebench run analyse --state {params.state} --spec {params.spec:q}"
        " --glob scores='scores/*/*/*.json' items='scores/*/*/*.items.parquet' costs='costs/**/*.json' searches='tuning/*/*/search.parquet'"
        " winners='tuning/*/*/best.yaml'"
        " losses='models/*/*/losses.jsonl' merges='models/*/merged_*/manifest.json'"
        " --output cost={output.cost} --output-files {output.reported} 2> {log}"
