"""Every kind of bad request over real HTTP: its status, its code, and what was kept of it."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

from headrace_ingest.store import REJECTED_MESSAGES

from tests.support.ingest import Ingest

_CASES: list[dict[str, Any]] = json.loads(Path("tests/cases/bad_requests.json").read_text())["cases"]
_MAPPING = {
    "kind": "identify",
    "identifiers": {"crm_id": "contact.id", "email": "contact.email"},
    "traits": {"plan": "contact.plan"},
}


def _body(spec: Any) -> bytes:
    if isinstance(spec, str):
        return spec.encode()
    if "base64" in spec:
        return base64.b64decode(spec["base64"])
    if "gzip_of" in spec:
        return gzip.compress(_body(spec["gzip_of"]), mtime=0)
    times = spec["times"]
    text: str = spec.get("prefix", "") + spec["repeat"] * times + spec.get("middle", "")
    text += spec.get("repeat_after", "") * times + spec.get("suffix", "")
    return text.encode()


async def test_bad_requests(ingest: Ingest) -> None:
    assert len(_CASES) >= 60
    web = await ingest.source("web")
    crm = await ingest.source("crm", "webhook", mapping=json.dumps(_MAPPING))
    disabled = await ingest.source("old", disabled=True)
    site = await ingest.source("site", "website", allowed_origins=["https://shop.example", "https://*.shop.example"])
    keys = {
        "good": web.write_key,
        "unknown": "wk_unknown",
        "none": "",
        "disabled": disabled.write_key,
        "site": site.write_key,
        "webhook": crm.webhook_token,
    }
    wrong: list[str] = []
    seen: set[str] = set()
    logged = 0
    for case in _CASES:
        body = _body(case["body"])
        key = keys[case.get("key", "good")]
        path = case["path"].format(crm=crm.webhook_token, web=web.write_key)
        headers = {"Content-Type": "application/json", **({"X-Write-Key": key} if key else {})}
        headers |= case.get("headers", {})
        async with ingest.http.request(
            case.get("method", "POST"), f"{ingest.url}{path}", data=body, headers=headers
        ) as response:
            status, answer = response.status, await response.json()
            content_type = response.content_type
        found = _found(case, status, answer, content_type)
        records = [d async for d in ingest.db[REJECTED_MESSAGES].find({"_id": {"$nin": list(seen)}})]
        seen |= {record["_id"] for record in records}
        found += _kept(case, body, records)
        accepted, logged = await ingest.count() - logged, await ingest.count()
        if accepted != case.get("accepted", 0):
            found.append(f"{accepted} events were accepted")
        wrong += [f"{case['id']}: {text}" for text in found]
    assert not wrong, "\n".join(wrong)
    status, answer = await ingest.post("/v1/track", {"userId": "u", "event": "A"}, web.write_key)
    assert (status, answer) == (200, {"success": True}), "the service is as well as before"


def _found(case: dict[str, Any], status: int, answer: dict[str, Any], content_type: str) -> list[str]:
    found = []
    if status != case["status"]:
        found.append(f"status {status}, expected {case['status']}")
    if content_type != "application/json":
        found.append(f"content type {content_type}")
    if status != 200:
        if answer.get("code") != case["code"]:
            found.append(f"code {answer.get('code')}, expected {case['code']}")
        if not answer.get("message") or not isinstance(answer.get("details"), list):
            found.append("no message or no details")
        field = answer["details"][0]["field"] if answer.get("details") else ""
        if field != case.get("field", ""):
            found.append(f"field {field!r}, expected {case.get('field', '')!r}")
        return found
    results = answer.get("results", [])
    if answer.get("success") is not True or len(results) != len(case["items"]):
        return [*found, f"answer {answer}"]
    for result, expected in zip(results, case["items"], strict=True):
        wrong = {k: result.get(k) for k, v in expected.items() if result.get(k) != v}
        if wrong or result["status"] != "rejected" or not result["message"]:
            found.append(f"result {result}, expected {expected}")
    return found


def _kept(case: dict[str, Any], body: bytes, records: list[dict[str, Any]]) -> list[str]:
    if len(records) != case["kept"]:
        return [f"{len(records)} messages were kept, expected {case['kept']}"]
    if not records:
        return []
    record, expected = records[0], case.get("kept_body", "whole")
    code = case["code"] or case["items"][0]["code"]
    found = []
    if record["code"] != code or not record["reason"] or record["w"] != "shop":
        found.append(f"kept with the code {record['code']}")
    if "items" not in case and record["field"] != case.get("field", ""):
        found.append(f"kept with the field {record['field']!r}")
    kept = bytes(record["b"])
    if expected == "whole":
        right = kept == body
    elif "length" in expected:
        right = len(kept) == expected["length"]
    else:
        right = kept == _body(expected.get("text", expected))
    if not right:
        found.append(f"of the body {len(kept)} bytes were kept")
    return found
