"""Templates of webhooks: data in, data out."""

from __future__ import annotations

from typing import Any

from headrace_destination_webhook.template import Template, TemplateError
from hypothesis import given
from hypothesis import strategies as st

PLAIN = st.text(alphabet=st.characters(exclude_characters="${}", exclude_categories=["Cs"]), max_size=10)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | PLAIN,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
)
def test_a_template_without_places_is_itself(template: Any) -> None:
    assert Template(template).render({"event": {}, "profile": None}) == template


@given(JSON, PLAIN, PLAIN)
def test_a_value_keeps_its_type_alone_and_is_written_in_otherwise(value: Any, before: str, after: str) -> None:
    document = {"event": {"properties": {"v": value}}, "profile": None}
    assert Template("${event.properties.v}").render(document) == value
    if before or after:
        written = Template(f"{before}${{event.properties.v}}{after}").render(document)
        assert written.startswith(before) and written.endswith(after)
        if isinstance(value, str):
            # A value is never read as a template itself.
            assert written == before + value + after


@given(st.text(alphabet="${}abc.[]| ", max_size=12))
def test_any_text_is_taken_or_refused(text: str) -> None:
    try:
        template = Template({"a": [text]})
    except TemplateError:
        assert "${" in text
        return
    try:
        template.render({"event": {"a": 1}, "profile": None})
    except TemplateError:
        assert "${" in text
