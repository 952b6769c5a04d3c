"""Seeded test data: the same for the same seed, valid for every connector that is installed."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from headrace.connector.wire import describe
from headrace_sdk import Capability, FieldType, Manifest, StandardEvent
from headrace_sdk import Field as Value
from headrace_sdk.samples import Fill, SampleError, Samples


class Inner(BaseModel):
    id: str = Field(pattern=r"^[0-9]{1,32}$")


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    token: SecretStr
    url: str = Field(max_length=200)
    version: str = Field(pattern=r"^v[0-9]{1,3}\.[0-9]{1,2}$")
    size: int = Field(ge=3, lt=5)
    rules: dict[str, Inner] = Field(min_length=1)
    parent: Inner | None
    names: list[str] = Field(min_length=2)
    title: str = "as it is"


def manifest(settings: type[BaseModel] = Settings, **more: Any) -> Manifest:
    values: dict[str, Any] = {
        "name": "acme",
        "title": "Acme",
        "factory": "acme:Acme",
        "settings": settings,
        "capabilities": frozenset({Capability.FORWARDING}),
        "fields": (
            Value(name="email", title="E-mail", many=True),
            Value(name="phone", title="Phone"),
            Value(name="plan", title="Plan", required=True, example="pro"),
            Value(name="value", title="Value", type=FieldType.NUMBER, example="19.9"),
            Value(name="items", title="Items", type=FieldType.LIST, example='[{"id": 1}]'),
            Value(name="at", title="At", type=FieldType.TIME),
        ),
        "any_of": (("email", "phone"),),
        "events": (StandardEvent(name="Purchase", names=("Order Completed",), requires=("value",)),),
    }
    return Manifest(**{**values, **more})


def test_the_same_seed_gives_the_same_data_whatever_was_asked_for_before() -> None:
    first, second = Samples(manifest(), seed=7), Samples(manifest(), seed=7)
    first.settings()
    first.fields(3)
    assert first.events(5) == second.events(5)
    assert first.settings() == second.settings()
    assert first.members(4)[:2] == second.members(2)
    assert Samples(manifest(), seed=8).events(5) != second.events(5)
    assert Samples(manifest(), seed=8).settings() != second.settings()


def test_settings_hold_to_their_schema() -> None:
    for seed in range(20):
        made = Samples(manifest(), seed=seed).settings()
        checked = Settings.model_validate(made)
        assert checked.title == "as it is" and "title" not in made
        assert "sample-secret" in checked.token.get_secret_value()
        assert made == Samples(describe(manifest()), seed=seed, schema=Settings.model_json_schema()).settings()


def test_fixed_settings_are_kept() -> None:
    assert Samples(manifest()).settings({"url": "http://127.0.0.1:1/"})["url"] == "http://127.0.0.1:1/"


def test_a_setting_that_needs_examples_is_named_without_its_value() -> None:
    class Picky(BaseModel):
        code: str

        @field_validator("code")
        @classmethod
        def _even(cls, code: str) -> str:
            if code != "even-more":
                raise ValueError("is not even more")
            return code

    class Patterned(BaseModel):
        code: str = Field(pattern="^never-{3}$")

    class Exemplary(Picky):
        code: str = Field(examples=["even-more"])

    class Whole(Picky):
        model_config = ConfigDict(json_schema_extra={"examples": [{"code": "even-more"}]})

    for model in (Picky, Patterned):
        with pytest.raises(SampleError, match=r"code.*: give it examples"):
            Samples(manifest(model)).settings()
    for model in (Exemplary, Whole):
        assert Samples(manifest(model)).settings() == {"code": "even-more"}


def test_fields_by_how_many_are_asked_for() -> None:
    samples = Samples(manifest())
    full = samples.fields(3)
    assert set(full) == {"email", "phone", "plan", "value", "items", "at"}
    assert (full["plan"], full["value"], full["items"]) == ("pro", 19.9, [{"id": 1}])
    for place in range(30):
        bare = set(samples.fields(place, Fill.REQUIRED))
        assert {"plan", "value"} <= bare and len(bare & {"email", "phone"}) == 1 and len(bare) == 3
        some = set(samples.fields(place, Fill.SOME))
        assert {"plan", "value"} <= some and some & {"email", "phone"}
    assert len({tuple(sorted(samples.fields(place, Fill.SOME))) for place in range(30)}) > 5


def test_members_have_texts_and_events_any_json() -> None:
    samples = Samples(manifest())
    (member,) = samples.members(1)
    assert member.fields["value"] == "19.9" and isinstance(member.fields["email"], list)
    events = samples.events(2)
    assert [event.name for event in events] == ["Order Completed", "Sample Happened"]
    assert events[0].fields["value"] == 19.9 and events[0].profile is not None
    assert len({event.message_id for event in samples.events(50)}) == 50
    assert [bool(subject.merged_ids) for subject in samples.subjects(2)] == [False, True]


def shipped() -> list[Manifest]:
    points = entry_points(group="headrace.plugins")
    return [manifest for point in points for manifest in point.load().headrace_connectors()]


@pytest.mark.parametrize("shipped", shipped(), ids=lambda one: str(one.name))
def test_every_item_of_an_installed_connector_has_what_it_needs(shipped: Manifest) -> None:
    info = describe(shipped)
    samples = Samples(shipped, seed=1)
    for fill in Fill:
        for event in samples.events(5, fill):
            assert not info.missing(event.fields)
