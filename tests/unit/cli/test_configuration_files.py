"""Configuration files: what they may hold, and what is said about those that hold anything else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.cli.config.resources import read_resources
from headrace.cli.config.yamldoc import ProblemsFound, read_documents, write_document

ENVIRONMENT = {"TOKEN": "s3cret", "EMPTY": "", "TRICKY": "a: b\n- ${TOKEN}"}


def problems_of(text: str) -> list[str]:
    with pytest.raises(ProblemsFound) as raised:
        read_resources([("a.yaml", text)], ENVIRONMENT)
    return [str(p) for p in raised.value.problems]


def test_each_kind_is_read_with_its_defaults() -> None:
    text = """
kind: Source
id: web
type: website
allowed_origins: [https://shop.example]
---
# nothing in this document
---
kind: Audience
id: buyers
display_name: Buyers
active: true
definition: {where: {event: Purchased, within: 30d}}
---
kind: Destination
id: hook
connector: webhook
settings: {url: "https://x.example/${TOKEN}", text: "5 $$ and $${TOKEN} and $x"}
---
kind: Sync
id: all
type: FORWARDING
destination: hook
"""
    web, buyers, hook, sync = read_resources([("a.yaml", text)], ENVIRONMENT)
    assert web.values == {
        "display_name": "web",
        "type": "website",
        "allowed_origins": ["https://shop.example"],
        "mapping": None,
    }
    assert buyers.values["active"] is True
    assert buyers.place == "a.yaml:9"
    assert hook.values["settings"] == {"url": "https://x.example/s3cret", "text": "5 $ and ${TOKEN} and $x"}
    assert sync.values["type"] == "forwarding"
    assert "paused" not in sync.values, "what is switched in daily work stays as it is when the file does not name it"


AUDIENCE = "kind: Audience\nid: a\ndefinition: {where: {event: X}}\n"
SYNC = "kind: Sync\nid: s\ndestination: d\n"

BAD = {
    "no YAML": ("kind: [", "a.yaml:1: no YAML: "),
    "a tab": ("kind:\n\tid: x", "a.yaml:2: no YAML: "),
    "a control character": ("kind: a\0b", "a.yaml:1: no YAML: "),
    "a list": ("- kind: Source", "a.yaml:1: a document is a mapping with kind, id and more"),
    "a word": ("hello", "a.yaml:1: a document is a mapping with kind, id and more"),
    "no kind": (
        "id: x", "a.yaml:1: kind is missing: one of Source, IdentityRules, ComputedTrait, Audience, Destination, Sync"
    ),
    "other rules": ("kind: IdentityRules\nid: mine\nrules: {}", "a.yaml:2: a workspace has one IdentityRules: id"),
    "wrong rules": (
        "kind: IdentityRules\nid: workspace\nrules: {namespaces: [{name: a, limit: 0}]}",
        "a.yaml:3: rules: namespaces[0].limit: must be a whole number from 1 to 1000",
    ),
    "unknown kind": ("kind: Sources\nid: x", "a.yaml:1: there is no kind 'Sources' (did you mean Source?): it is "),
    "a list as kind": ("kind: [Source]\nid: x", "a.yaml:1: there is no kind ['Source']"),
    "no id": ("kind: Source\ntype: http", "a.yaml:1: id is missing"),
    "capital id": ("kind: Source\nid: Web\ntype: http", "a.yaml:2: id must be 1 to 63 lower-case letters"),
    "long id": (f"kind: Source\nid: {'a' * 64}\ntype: http", "a.yaml:2: id must be 1 to 63 lower-case letters"),
    "path as id": ("kind: Source\nid: a/b\ntype: http", "a.yaml:2: id must be"),
    "number as id": ("kind: Source\nid: 12\ntype: http", "a.yaml:2: id must be 1 to 63 lower-case letters, digits and "
                     "dashes, no dash first, quoted if it is a number"),
    "option as id": ("kind: Source\nid: -a\ntype: http", "a.yaml:2: id must be"),
    "unknown key": (AUDIENCE + "activ: true", "a.yaml:4: Audience has no key 'activ' (did you mean active?)"),
    "output-only key": (AUDIENCE + "create_time: x", "a.yaml:4: Audience has no key 'create_time'"),
    "missing key": ("kind: Destination\nid: d", "a.yaml:1: Destination needs connector: name of the connector."),
    "empty required": ("kind: Destination\nid: d\nconnector: ''", "a.yaml:3: connector must not be empty"),
    "null required": ("kind: Destination\nid: d\nconnector:", "a.yaml:1: Destination needs connector"),
    "text for a flag": (AUDIENCE + "active: yes", "a.yaml:4: active must be true or false"),
    "number for a flag": (AUDIENCE + "active: 1", "a.yaml:4: active must be true or false"),
    "number for a text": (AUDIENCE + "display_name: 12", "a.yaml:4: display_name must be a text; quote it"),
    "text for a list": ("kind: Source\nid: s\ntype: http\nallowed_origins: x", "a.yaml:4: allowed_origins must be a"),
    "numbers in a list": ("kind: Source\nid: s\ntype: http\nallowed_origins: [1]", "a.yaml:4: allowed_origins must be"),
    "text for a mapping": ("kind: Destination\nid: d\nconnector: c\nsettings: '{}'", "a.yaml:4: settings must be a"),
    "wrong choice": ("kind: Source\nid: s\ntype: grpc", "a.yaml:3: type must be one of http, website, webhook"),
    "name as reference": (SYNC.replace("d\n", "workspaces/w/destinations/d\n") + "type: forwarding",
                          "a.yaml:3: destination must be the id of a Destination"),
    "twice": (AUDIENCE + "---\n" + AUDIENCE, "a.yaml:5: Audience a is described twice, first at a.yaml:1"),
    "key twice": (AUDIENCE + "id: b", "a.yaml:4: the key 'id' comes twice"),
    "deep key twice": (AUDIENCE + "x: {y: 1, y: 2}", "a.yaml:4: the key 'y' comes twice"),
    "merge key": ("a: &a {x: 1}\nb: {<<: *a}", "a.yaml:2: a key must be a plain word"),
    "list as key": ("? [a]\n: b", "a.yaml:1: a key must be a plain word"),
    "tag": ("kind: !!python/name:os.system x", "a.yaml:1: the tag 'python/name:os.system' is not allowed"),
    "binary": ("kind: !!binary aGk=", "a.yaml:1: the tag 'binary' is not allowed"),
    "infinity": (AUDIENCE + "display_name: .inf", "a.yaml:4: .inf is no number that JSON can hold"),
    "unset variable": (AUDIENCE + "display_name: ${NOPE}", "a.yaml:4: the variable NOPE is not set in the environment"),
    "open variable": (AUDIENCE + "display_name: a ${TOKEN", "a.yaml:4: ${ begins a variable: write ${NAME}, or $${ "),
    "bad variable": (AUDIENCE + "display_name: ${1}", "a.yaml:4: ${ begins a variable"),
    "definition key": ("kind: Audience\nid: a\ndefinition: {where: {evnt: X}}", "a.yaml:3: definition: where: unkn"),
    "definition value": ("kind: Audience\nid: a\ndefinition: {where: {event: X, within: 7}}", "a.yaml:3: definition: "),
    "webhook mapping": ("kind: Source\nid: s\ntype: webhook\nmapping: {evnt: x}", "a.yaml:4: mapping: "),
    "mapping of no webhook": ("kind: Source\nid: s\ntype: http\nmapping: {event: x}", "a.yaml:4: mapping is for web"),
    "list sync without audience": (SYNC + "type: list", "a.yaml:1: a sync of type list needs audience"),
    "forwarding with audience": (SYNC + "type: forwarding\naudience: a", "a.yaml:5: a forwarding sync has no audience"),
    "names of a list": (SYNC + "type: list\naudience: a\nevent_names: [x]", "a.yaml:6: event_names is for forwarding "),
    "approval of events": (
        SYNC + "type: event\naudience: a\nrequire_approval: true",
        "a.yaml:6: require_approval is for list",
    ),
    "removals of a list": (SYNC + "type: list\naudience: a\nsend_removals: true", "a.yaml:6: send_removals is for"),
    "bomb": ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{c}: &{c} [{','.join(['*' + chr(ord(c) - 1)] * 9)}]\n" for c in "bcdefgh"), "nested too deeply or too large"),
    "itself": ("a: &a [*a]", "nested too deeply or too large"),
    "deep": ("[" * 150 + "]" * 150, "nested too deeply or too large"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_with_the_place_and_the_reason(text: str, said: str) -> None:
    (problem, *_) = problems_of(text)
    assert said in problem
    assert problem.startswith("a.yaml:")


def test_everything_wrong_is_said_at_once() -> None:
    text = "kind: Sync\nid: S\ntype: lst\ndestnation: d\n---\nkind: Audience\nid: a\n"
    assert problems_of(text) == [
        "a.yaml:2: id must be 1 to 63 lower-case letters, digits and dashes, no dash first",
        "a.yaml:4: Sync has no key 'destnation' (did you mean destination?)",
        "a.yaml:3: type must be one of list, event, forwarding",
        "a.yaml:1: Sync needs destination: id of the destination.",
        "a.yaml:6: Audience needs definition: who is in it, as text or as a mapping.",
    ]


def test_no_value_of_a_variable_is_quoted() -> None:
    text = "kind: Destination\nid: ${TOKEN}/\nconnector: c\ntype: ${TOKEN}\nsettings: ${TOKEN}"
    assert "s3cret" not in "\n".join(problems_of(text))


def test_values_of_variables_are_text_and_never_yaml() -> None:
    (document,) = read_documents('a: "${TRICKY}"\nb: ${EMPTY}\nc: $$${TOKEN}', "x", ENVIRONMENT)
    assert document.value == {"a": ENVIRONMENT["TRICKY"], "b": "", "c": "$s3cret"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("true", True),
        ("-3", -3),
        ("2.5", 2.5),
        ("1e3", "1e3"),  # YAML 1.1 takes it as text; JSON has 1000.0
        ("~", None),
        ("'12'", "12"),
        ('"true"', "true"),
        ("|\n  12", "12"),
    ],
)
def test_plain_values_are_what_they_look_like(text: str, value: object) -> None:
    (document,) = read_documents(f"a: {text}", "x", {})
    assert document.value == {"a": value}
    assert type(document.value["a"]) is type(value)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.text("${}A"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(JSON_VALUES)
def test_what_export_writes_is_read_back_the_same(value: object) -> None:
    text = write_document({"a": value})
    (document,) = read_documents(text, "x", {})
    assert document.value == {"a": value}
