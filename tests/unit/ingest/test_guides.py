"""The guides say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from headrace_ingest.mapping import _Spec, parse_mapping
from headrace_ingest.refusal import Code
from headrace_ingest.settings import Settings

_SENDING = Path("docs/guides/sending-events.md").read_text()
_WEBHOOKS = Path("docs/guides/webhooks.md").read_text()


@pytest.mark.parametrize("code", list(Code))
def test_every_code_is_documented(code: Code) -> None:
    assert f"`{code}`" in _SENDING


def test_every_documented_mapping_is_one() -> None:
    examples = re.findall(r"```json\n(.*?)```", _WEBHOOKS, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        parse_mapping(example)


def test_every_key_of_a_mapping_is_documented() -> None:
    for field in msgspec.structs.fields(_Spec):
        assert f"`{field.name}`" in _WEBHOOKS


def test_the_limits_are_those_of_the_settings() -> None:
    fields = Settings.model_fields
    assert fields["max_message_bytes"].default == 32 * 1024 and "32 KiB" in _SENDING
    assert fields["max_batch_bytes"].default == 512 * 1024 and "512 KiB" in _SENDING
    assert fields["max_batch_messages"].default == 2_500 and "2,500" in _SENDING
    assert fields["max_depth"].default == 64 and "64 levels" in _SENDING
    assert fields["raw_message_days"].default == 28 and "28 days" in _SENDING


def test_the_example_of_results_is_json() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", _SENDING, re.DOTALL)
    assert json.loads(example)["results"][0]["code"] in list(Code)
