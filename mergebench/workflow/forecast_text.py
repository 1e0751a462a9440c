"""A forecast as text."""

from typing import Any

from mergebench.workflow.storage import gigabytes


def render(record: dict[str, Any]) -> str:
    """The numbers as text: a line per rule, then the totals."""
    width = max(map(len, record["rules"]))
    lines = [f"{'rule':{width}}  {'jobs':>6}  {'to do':>6}  {'GPU-hours':>10}  {'CPU-hours':>10}  {'written':>9}  {'done after':>10}"]
    for rule, row in record["rules"].items():
        hours = f"{row['gpu_hours']:>10,.1f}  {row['cpu_hours']:>10,.1f}  {gigabytes(row['written_bytes']):>9}"
        after = duration(row["finished_after_hours"]) if row["todo"] else "-"
        lines.append(f"{rule:{width}}  {row['jobs']:>6,}  {row['todo']:>6,}  {hours}  {after:>10}")
    written = gigabytes(sum(row["written_bytes"] for row in record["rules"].values()))
    total = f"{record['gpu_hours']:>10,.1f}  {record['cpu_hours']:>10,.1f}  {written:>9}"
    lines.append(f"{'total':{width}}  {record['jobs']:>6,}  {record['todo']:>6,}  {total}  {duration(record['wall_hours']):>10}")
    disk = {name.removesuffix("_bytes"): gigabytes(size) for name, size in record["disk"].items()}
    budget = f" (budget {gigabytes(record['budget_bytes'])})" if record["budget_bytes"] else ""
    parts = f"{disk['kept']} stay, {disk['saved']} saved states of training, {disk['window']} merged models that are dropped later"
    lines += [
        "",
        f"wall-clock: about {duration(record['wall_hours'])} on {record['gpus']} GPUs",
        f"disk: at most {disk['peak']}{budget}: {parts}",
        f"assumed: {record['assumptions']}",
    ]
    if record["corrections"]:
        said = ", ".join(f"{stage} x{c['factor']:.2g} ({c['finished']} jobs)" for stage, c in record["corrections"].items())
        lines.append(f"corrected by finished jobs: {said}")
    return "\n".join([*lines, *(f"warning: {sentence}" for sentence in record["warnings"])])


def duration(hours: float) -> str:
    """Hours in the unit that reads best."""
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
