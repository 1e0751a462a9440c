"""Scores: models are asked in jobs of several benchmarks; what a judge or the sandbox decides about is settled after that."""

for group in PLAN.groups:

    rule:
        name:
            f"evaluate_{group.name}"
        input:
            unpack(model("{model}")),
            data=[PLAN.data(b) for b in group.benchmarks],
        output:
            made=[path for b in group.benchmarks for path in PLAN.asked("{base}", "{model}", b)],
            cost=f"{RESULTS}/costs/evaluate/{{base}}/{{model}}/{group.name}.json",
        log:
            f"{RESULTS}/logs/evaluate/{{base}}/{{model}}/{group.name}.log",
        benchmark:
            f"{RESULTS}/benchmarks/evaluate/{{base}}/{{model}}/{group.name}.jsonl"
        wildcard_constraints:
            model=plan.alternatives(group.models),
        conda:
            MODEL_ENVIRONMENT
        threads: need("evaluate", "threads", group=group.name)
        resources:
            nodes=1,
            gpu=need("evaluate", "gpu", group=group.name),
            mem_mb=need("evaluate", "mem_mb", group=group.name),
            runtime=need("evaluate", "runtime", group=group.name),
        params:
            spec=spec("evaluate", group=group.name),
            state=STATE,
        shell:
            "exec mergebench run evaluate --threads {threads} --state {params.state} --spec {params.spec:q}"
            " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} gpu={resources.gpu} threads={threads}"
            " --input weights={input.weights} data={input.data}"
            " --output cost={output.cost} --output-files {output.made} 2> {log}"


for chosen in PLAN.settled:
    # A job for one model, or one for all models of a base.
    PLACE = "{base}" if chosen.together else "{base}/{model}"

    if chosen.kind == "safety":

        rule:
            name:
                chosen.judge_rule
            input:
                answers=settled(chosen.name, PLAN.answers),
                data=[PLAN.data(b) for b in chosen.benchmarks],
                manifest=f"{PLAN.judge}/manifest.json" if PLAN.judge else [],
                weights=ancient(f"{PLAN.judge}/weights") if PLAN.judge else [],
            output:
                labels=[PLAN.labels("{base}", m, b) for m in chosen.covers("{model}") for b in chosen.benchmarks],
                cost=f"{RESULTS}/costs/judge/{PLACE}/{chosen.name}.json",
            log:
                f"{RESULTS}/logs/judge/{PLACE}/{chosen.name}.log",
            benchmark:
                f"{RESULTS}/benchmarks/judge/{PLACE}/{chosen.name}.jsonl"
            wildcard_constraints:
                model=plan.alternatives(chosen.models),
            localrule: PLAN.judge is None
            conda:
                MODEL_ENVIRONMENT
            threads: need("judge", "threads", group=chosen.name)
            resources:
                nodes=1,
                gpu=need("judge", "gpu", group=chosen.name),
                mem_mb=need("judge", "mem_mb", group=chosen.name),
                runtime=need("judge", "runtime", group=chosen.name),
            params:
                spec=spec("judge", group=chosen.name),
                state=STATE,
            shell:
                "exec mergebench run judge --threads {threads} --state {params.state} --spec {params.spec:q}"
                " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} gpu={resources.gpu} threads={threads}"
                " --input weights={input.weights} answers={input.answers} data={input.data}"
                " --output cost={output.cost} --output-paths {output.labels} 2> {log}"

    rule:
        name:
            f"settle_{chosen.name}"
        input:
            answers=settled(chosen.name, PLAN.answers),
            labels=settled(chosen.name, PLAN.labels) if chosen.kind == "safety" else [],
            data=[PLAN.data(b) for b in chosen.benchmarks],
        output:
            scores=[
                f"{PLAN.score('{base}', m, b).removesuffix('.json')}.{s}"
                for m in chosen.covers("{model}")
                for b in chosen.benchmarks
                for s in ("json", "items.parquet")
            ],
            cost=f"{RESULTS}/costs/settle/{PLACE}/{chosen.name}.json",
        log:
            f"{RESULTS}/logs/settle/{PLACE}/{chosen.name}.log",
        benchmark:
            f"{RESULTS}/benchmarks/settle/{PLACE}/{chosen.name}.jsonl"
        wildcard_constraints:
            model=plan.alternatives(chosen.models),
        localrule: chosen.kind == "safety"
        conda:
            "../envs/cpu.yaml"
        threads: need("settle", "threads", group=chosen.name)
        resources:
            nodes=1,
            mem_mb=need("settle", "mem_mb", group=chosen.name),
            runtime=need("settle", "runtime", group=chosen.name),
        params:
            spec=spec("settle", group=chosen.name),
            state=STATE,
        shell:
            "exec mergebench run settle --threads {threads} --state {params.state} --spec {params.spec:q}"
            " --requested mem_mb={resources.mem_mb} runtime={resources.runtime} threads={threads}"
            " --input answers={input.answers} labels={input.labels} data={input.data}"
            " --output cost={output.cost} --output-paths {output.scores} 2> {log}"


for preferred, other in PLAN.preferred:
    workflow.ruleorder(preferred, other)


# The same results in the schemas of lm-eval and of the authors' scripts.
rule official:
    input:
        scores=PLAN.scores,
    output:
        cost=f"{RESULTS}/costs/official.json",
        made=[path for b in PLAN.bases for m in (*PLAN.general_models, *PLAN.specialists) for path in PLAN.official(b, m)],
    log:
        f"{RESULTS}/logs/official.log",
    benchmark:
        f"{RESULTS}/benchmarks/official.jsonl"
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        spec=spec("official"),
        state=STATE,
    shell:
        "exec mergebench run official --state {params.state} --spec {params.spec:q}"
        " --glob scores='scores/*/*/*.json'"
        " --output cost={output.cost} --output-paths {output.made} 2> {log}"
