"""What a run measured, as tables for people."""

from collections.abc import Callable
from typing import Any

from benchmarks.engines import OURS
from benchmarks.results import Results
from benchmarks.tables import figure, table
from benchmarks.targets import TARGETS, Target, reference_rate

Figures = dict[str, Any]


def report(results: Results) -> str:
    """Every part that was measured, then the targets, then what failed or was skipped."""
    sections = [machine_line(results)]
    for part, (title, render) in _SECTIONS.items():
        figures = results.figures(part)
        if figures:
            sections.append(f"### {title}\n\n{render(figures)}")
    rows = target_rows(results)
    if rows:
        sections.append(f"### Targets\n\n{table(('target', 'wanted', 'measured', 'met'), rows)}")
    for part, result in results.parts.items():
        sections.extend(f"FAILED {part}: {line}" for line in result.errors)
        sections.extend(f"skipped {part}: {line}" for line in result.skipped)
    return "\n\n".join(sections)


def machine_line(results: Results) -> str:
    """What the figures were measured on, in one line."""
    machine, project = results.machine, results.project
    native = "with" if project.get("native") else "without"
    return (
        f"{machine['cores']} cores {machine['processor']}, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}, broker on Java {machine.get('broker_java', '?')}; load at the start "
        f"{machine['load_1min']}, an empty call {machine['empty_call_ns']} ns; streamapp {project['version']} "
        f"({project['commit'] or 'no commit'}), {native} its native decoder, "
        f"profile {results.profile}, {results.started}"
    )


def target_rows(results: Results) -> list[tuple[str, str, str, str]]:
    """Each target that this run has a figure for: what is wanted, what was measured, whether it is met."""
    rows = []
    for target in TARGETS:
        value = target.value(results)
        if value is not None:
            rows.append(
                (target.name, _wanted(target), figure(value, target.unit), "yes" if target.met(value) else "no")
            )
    return rows


def _wanted(target: Target) -> str:
    return f"{'≥' if target.at_least else '≤'} {figure(target.bound, target.unit)}"


def _throughput(figures: Figures) -> str:
    best = reference_rate(figures)
    rows = []
    for name, content in sorted(figures["engines"].items(), key=lambda item: -item[1]["events_per_s"]["median"]):
        rate = content["events_per_s"]
        rows.append(
            (
                f"**{name}**" if name.startswith(OURS) else name,
                content["durable"],
                figure(content["events"]),
                figure(rate["median"]),
                f"{figure(rate['min'])} - {figure(rate['max'])}",
                figure(rate["median"] / best, "x") if best else "-",
                figure(content["cpu_s_per_million"]["median"]),
                figure(content["broker_cpu_s_per_million"]["median"]),
            )
        )
    head = ("engine", "state on", "events", "events/s", "min - max", "to Kafka Streams", "CPU s/M", "broker CPU s/M")
    alone = figure(figures.get("aiokafka_alone_records_per_s"))
    return f"{table(head, rows)}\n\naiokafka alone, with no work: {alone} records/s."


def _steps(figures: Figures) -> str:
    names = {
        "fold": "table with a user's own function (`Fold`)",
        "agent": "`@app.agent`, no table",
        "stock_agent": "the same agent in stock Faust",
    }
    rows = [
        (title, figure(figures[name]["events_per_s"]), figure(figures[name]["cpu_s_per_million"]))
        for name, title in names.items()
        if name in figures
    ]
    return table(("what", "events/s", "CPU s/M"), rows)


def _latency(figures: Figures) -> str:
    rows = [
        (
            content["what"],
            figure(content["events_per_s"]),
            *(figure(content[name]) for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms", "samples")),
            figure(content["lost"]),
        )
        for content in figures.values()
    ]
    return table(("event until visible", "events/s", "p50 ms", "p90 ms", "p99 ms", "max ms", "probes", "unseen"), rows)


def _reads(figures: Figures) -> str:
    rows = [
        (
            content["what"],
            content["client"],
            figure(content["requests_per_s"]),
            figure(content["p50_ms"]),
            figure(content["p99_ms"]),
        )
        for content in figures.values()
    ]
    return table(("point reads", "client", "requests/s", "p50 ms", "p99 ms"), rows)


def _tools(figures: Figures) -> str:
    rows = [
        (content["what"], name, *(figure(of[value]) for value in ("p50_ms", "p90_ms", "p99_ms", "max_ms")))
        for content in figures.values()
        for name, of in (("all", content), *content["tools"].items())
    ]
    return table(("tools/call", "tool", "p50 ms", "p90 ms", "p99 ms", "max ms"), rows)


def _subscribers(figures: Figures) -> str:
    delay = figures["delay"]
    head = (
        *("subscribers, one key each", "of them stalled", "told/s", "p50 ms", "p99 ms", "bytes each"),
        *("events/s without", "events/s with", "ratio", "CPU s/M without", "CPU s/M with"),
    )
    names = (
        *("events_per_s_without", "events_per_s", "throughput_ratio"),
        *("cpu_s_per_million_without", "cpu_s_per_million"),
    )
    row = (
        figure(figures["subscribers"]),
        figure(figures["stalled"]),
        figure(delay["told_per_s"]),
        figure(delay["p50_ms"]),
        figure(delay["p99_ms"]),
        figure(figures["bytes_per_subscriber"]),
        *(figure(figures[name]) for name in names),
    )
    return table(head, [row])


def _recovery(figures: Figures) -> str:
    rows = [
        (content["what"], figure(content.get("restored")), figure(content.get("restore_s")), figure(content["ready_s"]))
        for content in figures["runs"].values()
    ]
    title = f"{figures['keys']:,} keys of 64 bytes"
    return table((title, "restored", "restore phase s", "start to ready s"), rows)


def _takeover(figures: Figures) -> str:
    names = ("keys", "partitions_lost", "copy_s", "owner_s", "beyond_session_s", "restored")
    head = (
        *("after kill -9", "keys", "partitions", "a copy answers, s", "a new owner answers, s"),
        *("beyond the session time-out, s", "still to restore"),
    )
    return table(head, [("two workers, a copy each", *(figure(figures[name]) for name in names))])


def _bridge(figures: Figures) -> str:
    row = [
        figures[name]
        for name in ("frames", "acknowledged_frames_per_s", "cpu_s_per_million", "broker_cpu_s_per_million")
    ]
    return table(("", "frames", "acknowledged frames/s", "CPU s/M", "broker CPU s/M"), [("bridge", *map(figure, row))])


def _memory(figures: Figures) -> str:
    names = (
        *("windows", "idle_mib", "peak_mib", "settled_mib", "settled_bytes_per_window"),
        *("new_windows_per_s", "cpu_s_per_million"),
    )
    head = ("", "live windows", "idle MiB", "peak MiB", "settled MiB", "bytes/window", "new windows/s", "CPU s/M")
    return table(head, [("resident", *(figure(figures[name]) for name in names))])


def _scaling(figures: Figures) -> str:
    names = ("events_per_s", "worker_cores", "broker_cores", "cpu_s_per_million", "broker_cpu_s_per_million")
    rows = [(number, *(figure(content[name]) for name in names)) for number, content in figures["workers"].items()]
    head = ("workers", "events/s", "their cores", "broker's cores", "CPU s/M", "broker CPU s/M")
    return f"{table(head, rows)}\n\nThe machine has {figures['cores']} cores for workers and broker together."


_SECTIONS: dict[str, tuple[str, Callable[[Figures], str]]] = {
    "throughput": ("Windowed aggregation", _throughput),
    "steps": ("A user's own Python", _steps),
    "latency": ("Latency", _latency),
    "reads": ("Point reads", _reads),
    "tools": ("MCP tools", _tools),
    "subscribers": ("Event streams", _subscribers),
    "recovery": ("Recovery", _recovery),
    "takeover": ("Take-over", _takeover),
    "bridge": ("Bridge", _bridge),
    "memory": ("Memory", _memory),
    "scaling": ("Scaling", _scaling),
}
