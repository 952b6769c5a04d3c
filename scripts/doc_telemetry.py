"""docs/reference/telemetry.md, read from the source: every metric with its labels, every span, the fields of logs.

What a label or a span means is written here; a label or a span that is not, or is no longer used, is an error.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (ROOT / "src/headrace", *sorted(ROOT.glob("services/*/headrace_*")))
KINDS = {"counter": "counter", "histogram": "histogram", "gauge_callback": "gauge"}
MAKES_SPANS = {"child_of": 1, "batch_span": 0, "event_spans": 0}
"""Functions that make spans, and where their argument `name` stands."""

LABELS = {
    "action": "What identity decided: `created`, `attached`, `merged`, ..., or `repeated` for an event it had already.",
    "by": "Who sent it: `dispatcher` at once, `sweeper` later from the log.",
    "cause": "What led to it: of memberships `event`, `time`, `merge`, `fill`, ...; of deliveries what had been lost.",
    "code": "Of gRPC the status code; of HTTP and messages the code in the answer, `ok` for success.",
    "connector": "Name of the connector, such as `webhook`.",
    "end": "How a preview or rebuild ended: `done`, `failed`, `stopped`.",
    "kind": "Of a plugin's failure what it did; of memberships the kind of sync, `list` or `event`; of alarms and of "
    "rebuilds theirs.",
    "loop": "Name of the background loop.",
    "method": "gRPC method with its service; of plugins the connector's method.",
    "outcome": "How it ended: `accepted` and `rejected`, `written` and `failed`, `delivered`, `warning`, `retry`, ...",
    "plugin": "Distribution of the plugin.",
    "reason": "Why events are refused: their person is `deleted` or `suppressed`.",
    "state": "State of the breaker: `closed`, `open` or `half_open`.",
    "status": "HTTP status, of vendors its class such as `2xx`; `none` when there was no answer.",
    "step": "Step of a deletion: `begin`, `forms`, `tell`, `remove`, `again` or `receipt`.",
    "stream": "Which stream: at identity its key, such as `headrace:events:3`; at sync `resolved` or `changes`.",
}

SPANS = {
    "ingest.{}": "Server span of an HTTP request; ends with the kind in its path, or `batch`.",
    "ingest.webhook": "Server span of a webhook's request.",
    "ingest.accept": "An event of a request that carries no trace: the root of the event's own trace.",
    "ingest.commit": "Batch: a group commit into segments.",
    "ingest.dispatch": "Batch: segments sent to their streams.",
    "identity micro-batch": "Batch: identifiers looked up, rules applied, committed, sent on.",
    "identity resolve": "An event in its micro-batch, with what was decided.",
    "evaluate_batch": "Batch: events folded into the columns of a partition, flips found.",
    "evaluate": "An event in its evaluation.",
    "plan deliveries": "Batch: events planned at the forwarding syncs of a workspace.",
    "deliver {}": "Batch: items delivered together; ends with the connector's name.",
    "deliver": "An item in its batch.",
    "Service/Method": "Server span of a gRPC call, named by its service and method.",
    "METHOD connector": "Client span of one request to a vendor, below the `deliver` of its first item.",
}
NAMED_ELSEWHERE = {'method.rpartition(".")[2]': "Service/Method", "name": "METHOD connector"}
"""Names of spans that the source computes, by the expression that does."""


@dataclass
class Metric:
    """An instrument as the source makes it."""

    name: str
    kind: str
    help: str
    place: str
    labels: set[str] = field(default_factory=set)

    @property
    def shown(self) -> str:
        """Its name at the Prometheus endpoint."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def telemetry() -> list[str]:
    """The page, without its heading."""
    metrics = sorted(_metrics(), key=lambda m: m.name)
    used = {label for metric in metrics for label in metric.labels}
    _same("labels", used, set(LABELS))
    _same("spans", set(_spans()), set(SPANS))
    lines = [
        "Each service serves its metrics at its Prometheus port (`HEADRACE_METRICS_PORT`; ingest also at `/metrics` of",
        "its HTTP port), sends spans where `OTEL_EXPORTER_OTLP_ENDPOINT` says, and writes its log to standard error.",
        "Nothing here ever holds a personal datum, a secret, or an id of a person.",
        "",
        "## Metrics",
        "",
    ]
    for place in sorted({metric.place for metric in metrics}, key=lambda p: (p != "every service", p)):
        lines += [f"### {place[0].upper()}{place[1:]}", "", "| metric | type | labels | |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{m.shown}` | {m.kind} | {', '.join(f'`{label}`' for label in sorted(m.labels))} | {m.help} |"
            for m in metrics
            if m.place == place
        ]
        lines.append("")
    lines += ["Labels:", "", "| label | |", "| --- | --- |"]
    lines += [f"| `{label}` | {LABELS[label]} |" for label in sorted(LABELS)]
    return [*lines, "", *_of_spans(), "", *_of_logs(), ""]


def _of_spans() -> list[str]:
    return [
        "## Spans",
        "",
        "An event has one trace from the request to the vendor's answer: the caller's when the request carries a valid",
        "`traceparent`, else one of its own. The context is stored with the event, so what is sampled is decided once",
        "(`HEADRACE_TRACE_RATIO`). Spans of batches are roots of traces of their own and link to the sampled events in",
        "them (at most 128), with `headrace.batch_size`; the span of an event links back to its batch.",
        "",
        "| span | |",
        "| --- | --- |",
        *(f"| `{name.format('...')}` | {meaning} |" for name, meaning in SPANS.items()),
    ]


def _of_logs() -> list[str]:
    rows = {
        "ts": "When, ISO 8601 UTC with milliseconds.",
        "level": "`DEBUG`, `INFO`, `WARNING` (heals by itself) or `ERROR` (somebody must look).",
        "logger": "The module.",
        "msg": "A constant sentence; what varies stands in further fields.",
        "service": "The service.",
        "trace_id, span_id": "The span in hand, when there is one.",
        "error": "Of an exception its types and the lines it passed, never its text: texts quote values.",
    }
    return [
        "## Logs",
        "",
        "One JSON object a line. `HEADRACE_LOG_LEVEL` sets the least severe level.",
        "",
        "| field | |",
        "| --- | --- |",
        *(f"| `{name}` | {meaning} |" for name, meaning in rows.items()),
        "",
        "Further fields belong to the sentence: counts, states, ids of workspaces, sources, segments, audiences and",
        "syncs, and `error_id`, which the caller of a failed call is told. A field whose name says that it holds a",
        'secret or a personal datum is written as `"[redacted]"`, at any depth.',
    ]


def _metrics() -> Iterator[Metric]:
    for folder in SOURCES:
        modules = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))}
        by_variable: dict[str, list[tuple[Path, Metric]]] = {}
        for path, module in modules.items():
            for node in ast.walk(module):
                made = node.value if isinstance(node, ast.Assign) else node
                if not isinstance(made, ast.Call) or (kind := _called(made)) not in KINDS:
                    continue
                texts = [a.value for a in made.args[:2] if isinstance(a, ast.Constant)]
                if len(texts) != 2 or not str(texts[0]).startswith("headrace_"):
                    continue
                metric = Metric(str(texts[0]), KINDS[kind], str(texts[1]), _place(folder, path))
                if kind == "gauge_callback":
                    metric.labels = _of_reader(made.args[2], module)
                    yield metric
                elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    by_variable.setdefault(node.targets[0].id, []).append((path, metric))
        for variable, found in by_variable.items():
            for path, metric in found:
                # A name with an underscore is the module's own; others may be used from the whole package.
                users = {path: modules[path]} if variable.startswith("_") else modules
                for module in users.values():
                    metric.labels |= _given(variable, module)
                yield metric


def _place(folder: Path, path: Path) -> str:
    if folder.name != "headrace":
        return folder.name.removeprefix("headrace_")
    return "plugins" if "plugins" in path.parts else "every service"


def _given(variable: str, module: ast.Module) -> set[str]:
    """Labels that are given wherever the instrument of this variable counts or records."""
    labels: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"add", "record"}:
            instrument = node.func.value
            name = instrument.attr if isinstance(instrument, ast.Attribute) else getattr(instrument, "id", "")
            if name == variable and len(node.args) == 2:
                labels |= _keys(node.args[1], module)
    return labels


def _keys(value: ast.expr, module: ast.Module) -> set[str]:
    """Keys of a mapping: written out, of a variable, or what a method returns."""
    if isinstance(value, ast.Dict):
        keys: set[str] = set()
        for key, item in zip(value.keys, value.values, strict=True):
            keys |= _keys(item, module) if key is None else {str(ast.literal_eval(key))}
        return keys
    if isinstance(value, ast.Name):
        for node in ast.walk(module):
            if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == value.id for t in node.targets):
                return _keys(node.value, module)
    if isinstance(value, ast.Call):
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef) and node.name == _called(value):
                return _returned(node)
    raise SystemExit(f"the labels in {ast.unparse(value)} cannot be read from the source")


def _of_reader(reader: ast.expr, module: ast.Module) -> set[str]:
    if isinstance(reader, ast.Lambda):
        return _returned(reader)
    name = reader.attr if isinstance(reader, ast.Attribute) else getattr(reader, "id", "")
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _returned(node)
    raise SystemExit(f"the reader {ast.unparse(reader)} cannot be read from the source")


def _returned(function: ast.FunctionDef | ast.Lambda) -> set[str]:
    """Keys of the mappings in what a function returns."""
    values = [function.body] if isinstance(function, ast.Lambda) else []
    values += [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and n.value is not None]
    found = [d for value in values for d in ast.walk(value) if isinstance(d, ast.Dict)]
    return {str(ast.literal_eval(key)) for d in found for key in d.keys if key is not None}


def _spans() -> Iterator[str]:
    for folder in SOURCES:
        for path in sorted(folder.rglob("*.py")):
            if path.match("headrace/telemetry/spans.py"):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and (place := MAKES_SPANS.get(_called(node))) is not None:
                    name = node.args[place]
                    if isinstance(name, ast.JoinedStr):
                        parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in name.values)
                        yield "".join(map(str, parts))
                    elif isinstance(name, ast.Constant):
                        yield str(name.value)
                    else:
                        yield NAMED_ELSEWHERE.get(ast.unparse(name).replace("'", '"'), ast.unparse(name))


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _same(what: str, used: set[str], described: set[str]) -> None:
    if used != described:
        raise SystemExit(
            f"{what} without a description in scripts/doc_telemetry.py: {sorted(used - described)};"
            f" described but not used: {sorted(described - used)}"
        )
