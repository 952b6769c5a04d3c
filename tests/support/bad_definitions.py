"""Definitions that are none: what somebody gives, below which key of it the fault is, and what is said of it.

Texts have their place in the sentence. Where an audience is missing, or refers to itself, only a service can know.
"""

from __future__ import annotations

import json
from typing import Any

A = {"event": "A"}


def text(where: Any, **more: Any) -> str:
    return json.dumps({"where": where, **more})


def of_p(op: str, value: str) -> str:
    return f'{{"where": {{"event": "A", "where": [{{"property": "p", "{op}": {value}}}]}}}}'


BAD: dict[str, tuple[str, str, str]] = {
    "10,000 conditions": (
        text({"any": [{"event": f"E{i}"} for i in range(10_000)]}),
        ".where.any[299]",
        "more than 300",
    ),
    "a text of 10,000 conditions": (" or ".join(["performed A"] * 10_000), "", "column 22513: there are more than 300"),
    "a text of 301 conditions": (" or ".join(["performed A"] * 301), "", "column 4486: any[299]: there are more"),
    "a text of 100,000 values": (
        f"trait a in ({','.join(['1'] * 100_000)})",
        "",
        "column 25009: there are more than 25000 words and signs",
    ),
    "a text of 40,000 tests": (
        f"performed A where ({', '.join(['a = 1'] * 30_000)})",
        "",
        "there are more than 25000 words and signs",
    ),
    "a depth of 1,000": ('{"where":' + '{"not":' * 1_000 + '{"event":"A"}' + "}" * 1_001, "", "is nested too deep"),
    "a depth of 100": (
        '{"where":' + '{"not":' * 100 + '{"event":"A"}' + "}" * 101,
        ".where" + ".not" * 50,
        "more than 50",
    ),
    "a text of depth 1,000": ("not " * 1_000 + "performed A", "", "line 1, column 401: is nested more than 50 deep"),
    "10,000 years": (text({**A, "within": "3650000d"}), ".where.within", "must be shorter than 100 years"),
    "no time": (text({**A, "within": "0d"}), ".where.within", "must be longer than nothing"),
    "windows that are no pair": (
        text({"all": [A, {**A, "within": "7d", "older_than": "30d"}]}),
        ".where.all[1].older_than",
        "older_than must be shorter than within",
    ),
    "windows of no time": (text({**A, "within": "0s", "older_than": "0s"}), ".where.within", "longer than nothing"),
    "windows of the same length": (
        text({**A, "within": "7d", "older_than": "168h"}),
        ".where.older_than",
        "older_than must be shorter than within",
    ),
    "an end of a window alone": (text({**A, "older_than": "7d"}), ".where.older_than", 'needs "within" beside it'),
    "windows of two kinds": (
        text({**A, "within": "30cd", "older_than": "7d"}),
        ".where.older_than",
        "must both be durations or both calendar days",
    ),
    "a window that ends before it begins": (
        text({**A, "between": ["2026-02-01", "2026-01-01"]}),
        ".where.between",
        "the second time is before the first",
    ),
    "10,000 years of a calendar": (text({**A, "within": "3660000cd"}), ".where.within", "must be at most 36600 days"),
    "two spans of 99 years": (
        text({"restarted": "A", "inactive_for": "36000d", "active_within": "36000d"}),
        ".where.inactive_for",
        "must together be shorter than 100 years",
    ),
    "inactive for longer than it was active": (
        text({"stopped": "A", "active_within": "1d", "inactive_for": "2d"}),
        ".where.inactive_for",
        "inactive_for must be shorter than active_within",
    ),
    "a step that could never come": (
        text({"sequence": [A, {**A, "within": "5d", "negated": True}], "within": "5d"}),
        ".where.sequence[1].within",
        "must be shorter than where.within",
    ),
    "periods of 10,000 years": (
        text({"regularly": "A", "period": "36000d", "periods": 100, "at_least": 1}),
        ".where.periods",
        "must together be shorter than 100 years",
    ),
    "two windows": (
        text({**A, "within": "7d", "since": "2026-01-01"}),
        ".where",
        "'within' and 'since' do not go together",
    ),
    "a number as text": (of_p("gt", '"5"'), ".where.where[0].gt", "must be a number"),
    "a count as text": (text({**A, "count": {"gte": "5"}}), ".where.count.gte", "must be a whole number"),
    "a sum as text": (text({**A, "sum": {"of": "p", "gt": "5"}}), ".where.sum.gt", "must be a number"),
    "no number": (of_p("gt", "NaN"), ".where.where[0].gt", "must be a finite number"),
    "an infinite number": (of_p("eq", "-Infinity"), ".where.where[0].eq", "must be a finite number"),
    "400 digits": (of_p("eq", "9" * 400), ".where.where[0].eq", "must be a finite number"),
    "5,000 digits": (of_p("eq", "9" * 5_000), ".where.where[0].eq", "must be a finite number"),
    "5,000 digits in text form": (
        "performed A count > " + "9" * 5_000,
        "",
        "line 1, column 21: gt: must be a whole number",
    ),
    "an exponent": (of_p("eq", "1e999"), ".where.where[0].eq", "must be a finite number"),
    "a large count": (text({**A, "count": {"gte": 10**30}}), ".where.count.gte", "must be at most 10000"),
    "an empty list": (text({"any": [A, {"all": []}]}), ".where.any[1].all", "must not be an empty list"),
    "a key that stands twice": (
        '{"where": {"any": [{"event": "A"}, {"event": "B", "count": {"gte": 1, "gte": 2}}]}}',
        ".where.any[1].count",
        "has the key 'gte' twice in one object",
    ),
    "a NUL": (text({"event": "A\0"}), ".where.event", "has a NUL character"),
    "a NUL in JSON": ('{"where": {"event": "\0"}}', "", "is no valid JSON: Invalid control character"),
    "half a pair": ('{"where": {"event": "\\ud800"}}', ".where.event", "has half a surrogate pair"),
    "half a pair as a key": ('{"\\ud800": 1, "where": {}}', ".\\ud800", "unknown key"),
    "half a pair as a kind": ('{"kind": "\\udfff", "where": {"event": "A"}}', ".kind", 'must be "dynamic" or "static"'),
    "a line as a key": (text({**A, "a\nb\x1b[2J": 1}), ".where.a\\nb\\x1b[2J", "unknown key"),
    "a long key": (text({"x" * 100_000: 1}), ".where", "unknown key"),
    "a long key of the whole": (json.dumps({"where": A, "x" * 100_000: 1}), "", "unknown key"),
    "a long value": (text(A, kind=["x" * 100_000]), ".kind", "must be"),
    "a long name": (text({"event": "x" * 201}), ".where.event", "is longer than 200 characters"),
    "a long word": ("performed " + "x" * 100_000, "", "line 1, column 11: event: is longer than 200"),
    "nobody": (text({**A, "count": {"lt": 0}}), ".where.count.lt", "nobody would be in"),
    "an audience that was deleted": (
        text({"not": {"audience": "gone"}}),
        ".where.not.audience",
        "there is no audience 'gone'",
    ),
    "an audience that is misspelt": (text({"audience": "ther"}), ".where.audience", "did you mean 'there'?"),
    "itself": (text({"any": [A, {"audience": "bad"}]}), ".where.any[1].audience", "in a circle: bad -> bad"),
    "a text that names one that was deleted": (
        "performed A and\n not in audience gone",
        "",
        "line 2, column 18: there is no audience 'gone'",
    ),
    "a text that names itself": (
        "performed A\nor in audience bad",
        "",
        "line 2, column 16: audiences refer to each other in a circle: bad -> bad",
    ),
    "a mark in front of what is wrong": (
        "\ufeffperformed A in last 0d",
        "",
        "line 1, column 21: within: must be longer",
    ),
}
