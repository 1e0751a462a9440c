"""The HTML report: everything that the analysis has made, and what the numbers rest on, in one file."""


rule report:
    input:
        reported=PLAN.tables,
        scores=PLAN.scores,
        searches=PLAN.searches,
        winners=[path for b in PLAN.bases for m in PLAN.tuned for path in PLAN.best(b, m)],
        losses=PLAN.losses,
        models=PLAN.models,
        data=[PLAN.data(b) for b in PLAN.benchmark_datasets],
    output:
        cost=f"{RESULTS}/costs/report.json",
        page=report(
            PLAN.report[0],
            caption="captions/report.rst",
            category="Report",
            labels={"report": "Report with provenance, search logs and failures"},
        ),
        data=[
            report(
                path,
                caption="captions/report_data.rst",
                category="Report",
                labels={"report": path.rpartition("/")[2]},
            )
            for path in PLAN.report[1:]
        ],
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.jsonl"
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        spec=spec("report"),
        state=STATE,
        inputs=globs(reported.INPUTS),
    shell:
        "exec mergebench run report --state {params.state} --spec {params.spec:q}"
        " --glob {params.inputs}"
        " --output cost={output.cost} --output-files {output.page} {output.data} 2> {log}"
