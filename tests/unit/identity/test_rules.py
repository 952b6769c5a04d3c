"""Identity rules: what is refused, with the place named; what a value is worth."""

from __future__ import annotations

import time

import pytest
from headrace_identity.resolving.offline import LineError, replay_lines
from headrace_identity.resolving.rules import DEFAULT_RULES, Blocked, RulesError, parse, parse_text

WRONG: list[tuple[object, str]] = [
    ([], ""),
    ({"namespace": []}, "namespace"),
    ({"namespaces": {}}, "namespaces"),
    ({"namespaces": ["email"]}, "namespaces[0]"),
    ({"namespaces": [{"limit": 1}]}, "namespaces[0]"),
    ({"namespaces": [{"name": ""}]}, "namespaces[0].name"),
    ({"namespaces": [{"name": " email"}]}, "namespaces[0].name"),
    ({"namespaces": [{"name": "email"}, {"name": "email"}]}, "namespaces[1].name"),
    ({"namespaces": [{"name": "email", "limit": 0}]}, "namespaces[0].limit"),
    ({"namespaces": [{"name": "email", "limit": True}]}, "namespaces[0].limit"),
    ({"namespaces": [{"name": "email", "limit": 1.5}]}, "namespaces[0].limit"),
    ({"namespaces": [{"name": "email", "per": "day"}]}, "namespaces[0].per"),
    ({"namespaces": [{"name": "email", "allow_short": 1}]}, "namespaces[0].allow_short"),
    ({"namespaces": [{"name": "email", "limits": 3}]}, "namespaces[0].limits"),
    ({"default_limit": 0}, "default_limit"),
    ({"default_limit": "5"}, "default_limit"),
    ({"default_country": "in"}, "default_country"),
    ({"default_country": "XX"}, "default_country"),
    ({"blocked": [{}]}, "blocked[0]"),
    ({"blocked": [{"equals": "a", "matches": "b"}]}, "blocked[0]"),
    ({"blocked": [{"equals": ""}]}, "blocked[0].equals"),
    ({"blocked": [{"matches": "("}]}, "blocked[0].matches"),
    ({"blocked": [{"matches": "(?=a)"}]}, "blocked[0].matches"),
    ({"blocked": [{"matches": "a{1001}"}]}, "blocked[0].matches"),
    ({"blocked": [{"matches": "(\\pL{9}){9}"}]}, "blocked[0].matches"),
    ({"blocked": [{"namespace": 1, "equals": "a"}]}, "blocked[0].namespace"),
    ({"protected": "user_id"}, "protected"),
    ({"protected": [""]}, "protected[0]"),
    ({"max_merges": -1}, "max_merges"),
    ({"max_merges": 1001}, "max_merges"),
    ({"max_identifiers": 0}, "max_identifiers"),
]


@pytest.mark.parametrize(("form", "place"), WRONG, ids=str)
def test_wrong_rules_name_the_place(form: object, place: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse(form)
    assert caught.value.field == place


@pytest.mark.parametrize(
    ("blocked", "place"),
    [
        ([{"equals": str(i)} for i in range(1_001)], "blocked"),
        ([{"matches": "x" * 10_000}], "blocked[0].matches"),
        ([{"matches": f"{chr(65 + i)}[a-z]{{900}}"} for i in range(26)], "blocked"),
        ([{"matches": f"{i}[a-z]{{900}}"} for i in range(1_000)], "blocked"),
    ],
    ids=["many values", "a long pattern", "long patterns", "very many long patterns"],
)
def test_too_much_to_block_is_refused(blocked: object, place: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse({"blocked": blocked})
    assert caught.value.field == place


@pytest.mark.parametrize(
    ("pattern", "description"),
    [
        ("(", "is no RE2 pattern: missing ): ("),
        ("[z-a]", "is no RE2 pattern: invalid character class range: z-a"),
        ("(?<=a)b", "is no RE2 pattern: invalid perl operator: (?<="),
        (r"(a)\1", r"is no RE2 pattern: invalid escape sequence: \1"),
        ("x{999}" * 9, "is too large a pattern: repeat less, or write several patterns"),
    ],
)
def test_wrong_patterns_say_what_is_wrong(pattern: str, description: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse({"blocked": [{"equals": "x"}, {"matches": pattern}]})
    assert (caught.value.field, caught.value.description) == ("blocked[1].matches", description)


def test_patterns_stand_for_themselves_beside_others() -> None:
    """They are matched as alternatives of one: flags, quotations and groups of one are nothing to the others."""
    patterns = ["^(?i)qa", r"\Q1.5", r"x\Qa|b\E|zz$", "(?P<n>t1)", "(?P<n>t2)|t3"]
    rules = parse({"blocked": [{"matches": p} for p in patterns]})
    for value in ("QAx", "v1.5", "xa|b", "izz", "t1", "t2x", "at3"):
        assert rules.check("crm_id", value).rule == "blocked:workspace", value
    for value in ("vQA", "v1x5", "xa", "xb", "X", "zzi", "T1", "1.", ")|(?:"):
        assert rules.check("crm_id", value).rule == "", value
    alone = parse({"blocked": [{"matches": "^q", "namespace": "crm_id"}, {"equals": "vip", "namespace": "email"}]})
    assert [alone.check(n, "quick1").rule for n in ("crm_id", "user_id")] == ["blocked:workspace", ""]


def test_a_thousand_patterns_take_as_long_as_one() -> None:
    rules = parse({"blocked": [{"matches": f"^test-{n}-[a-z]+@"} for n in range(1_000)]})
    started = time.process_time()
    for n in range(200):
        assert rules.check("crm_id", f"test-{n + 900}-ann@{n}").rule == ("blocked:workspace" if n < 100 else "")
    assert time.process_time() - started < 0.5  # 1.5 s one after the other


BOMBS = ["(a+)+$", "(a|aa)+$", "(a*)*b", "(x+x+)+y|(a+a+)+b", "(.*a){25}$", "(a?){400}a{400}$", "(.*){1,100}[bc]$"]


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_pattern_takes_more_than_linear_time(bomb: str) -> None:
    """A backtracking engine would take longer than the world is old for the first value already."""
    rules = parse({"blocked": [{"matches": bomb}]})
    started = time.process_time()
    for n in range(100):
        value = "a" * 500 + f"!{n}"
        assert rules.check("crm_id", value).value == value
    assert time.process_time() - started < 2  # some milliseconds, on a machine that does nothing else


def test_text_that_is_no_json() -> None:
    with pytest.raises(RulesError, match="no valid JSON"):
        parse_text("{")
    with pytest.raises(RulesError, match="surrogate"):
        parse_text(r'{"blocked": [{"matches": "\ud800"}]}')


def test_rules_survive_their_json_form() -> None:
    rules = parse(
        {
            "namespaces": [{"name": "email", "limit": 3, "per": "year"}, {"name": "crm_id", "allow_short": False}],
            "default_limit": 7,
            "blocked": [{"equals": "x@y.example"}, {"namespace": "crm_id", "matches": "^test"}],
            "protected": ["crm_id"],
            "max_merges": 2,
            "max_identifiers": 9,
            "default_country": "DE",
        }
    )
    assert parse(rules.as_json()) == rules
    assert parse({}) == DEFAULT_RULES == parse(DEFAULT_RULES.as_json())
    assert rules.blocked[0] == Blocked(equals="x@y.example")


@pytest.mark.parametrize(
    ("namespace", "value", "rule"),
    [
        ("user_id", "", "blocked:value"),
        ("user_id", "  NULL ", "blocked:value"),
        ("anonymous_id", "[object Object]", "blocked:value"),
        ("user_id", "00000000-0000-0000-0000-000000000000", "blocked:pattern"),
        ("email", "nobody", "blocked:invalid"),
        ("phone", "12", "blocked:invalid"),
        ("gclid", "EAIaIQ", "blocked:click_id"),
        ("fbp", "1111", "blocked:short"),
        ("user_id", "7", ""),
        ("crm_id", "tester", "blocked:workspace"),
        ("email", "Sales@Shop.example", "blocked:workspace"),
        ("email", "ann@shop.example", ""),
    ],
)
def test_what_a_value_is_worth(namespace: str, value: str, rule: str) -> None:
    rules = parse({"blocked": [{"namespace": "crm_id", "matches": "^test"}, {"equals": "sales@shop.example"}]})
    assert rules.check(namespace, value).rule == rule


def test_priority_is_that_of_the_rules_then_the_default_one() -> None:
    rules = parse({"namespaces": [{"name": "email"}, {"name": "zeta"}]})
    names = ["fbp", "anonymous_id", "phone", "user_id", "zeta", "email"]
    assert sorted(names, key=rules.rank) == ["email", "zeta", "user_id", "phone", "anonymous_id", "fbp"]


@pytest.mark.parametrize(
    ("line", "description"),
    [
        ("{", "line 2: is no JSON"),
        ("[]", "line 2: must be a JSON object"),
        ("{}", "line 2: type must be one of"),
        ('{"type": []}', "line 2: type must be one of"),
        ('{"type": "track", "userId": {}}', "line 2: userId must be a text or a number"),
        ('{"type": "track", "timestamp": "yesterday"}', "line 2: timestamp must be an ISO 8601 time"),
        ('{"type": "track", "timestamp": 1}', "line 2: timestamp must be an ISO 8601 time"),
        ('{"type": "track", "traits": []}', "line 2: traits must be a JSON object"),
        (
            '{"type": "track", "context": {"externalIds": [1]}}',
            "line 2: Each entry of context.externalIds must be an object",
        ),
        ('{"type": "track", "context": {"externalIds": 1}}', "line 2: context.externalIds must be an array"),
    ],
)
def test_wrong_lines_are_named(line: str, description: str) -> None:
    with pytest.raises(LineError) as caught:
        replay_lines(None, ['{"type": "page", "anonymousId": "dev1"}', line])
    assert str(caught.value).startswith(description)
    assert caught.value.line == 2


def test_offline_result() -> None:
    lines = [
        '{"type": "identify", "userId": 7, "traits": {"email": "Ann@Shop.example", "plan": "pro"}, "messageId": "a"}',
        "",
        '{"type": "track", "event": "Seen", "userId": "7", "anonymousId": "null"}',
    ]
    result = replay_lines("{}", lines)
    (profile,) = result["profiles"]
    assert profile["identifiers"] == [["email", "ann@shop.example"], ["user_id", "7"]]
    assert profile["traits"] == {"email": "Ann@Shop.example", "plan": "pro"}
    assert profile["message_ids"] == ["a", "line-3"]
    assert [(d["message_id"], d["action"], d["profile"], d["rule"]) for d in result["decisions"]] == [
        ("a", "created", profile["id"], "create"),
        ("line-3", "attached", profile["id"], "attach"),
    ]
    assert result["decisions"][1]["set_aside"] == [
        {"identifier": ["anonymous_id", "null"], "action": "blocked", "rule": "blocked:value"}
    ]
