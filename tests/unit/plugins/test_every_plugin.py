"""What holds for all connectors that come with Headrace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from headrace_sdk import Manifest

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
SECTIONS = ("Settings", "What is sent", "Limits", "Consent", "Answers", "What cannot be done")


def _manifests() -> Iterator[Manifest]:
    for point in entry_points(group="headrace.plugins"):
        yield from point.load().headrace_connectors()


MANIFESTS = sorted(_manifests(), key=lambda manifest: manifest.name)
VERSIONED = [manifest for manifest in MANIFESTS if manifest.versions]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest.name)
def test_a_version_that_can_be_set_is_watched(manifest: Manifest) -> None:
    """The check of a destination says when the version ends, or that its end is not known."""
    named = [name for name in manifest.settings.model_fields if name in ("api_version", "revision", "version")]
    assert named == ([manifest.versions.setting] if manifest.versions else [])


@pytest.mark.parametrize("manifest", VERSIONED, ids=lambda manifest: manifest.name)
def test_versions_have_a_default_that_is_a_version(manifest: Manifest) -> None:
    versions: Any = manifest.versions
    field = manifest.settings.model_fields[versions.setting]
    pattern = next(one.pattern for one in field.metadata if getattr(one, "pattern", None))
    for version in (field.default, *versions.ends):
        assert re.fullmatch(pattern, version), version


def test_the_vendors_whose_versions_are_in_their_addresses_can_have_another() -> None:
    assert {"tiktok-audience", "tiktok-events", "intercom"} <= {manifest.name for manifest in VERSIONED}
    ends = {manifest.name: manifest.versions.ends for manifest in VERSIONED if manifest.versions}
    assert {"v23", "v24", "v25", "v26"} <= set(ends["google-ads-conversions"])


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest.name)
def test_the_page_says_all_that_a_customer_has_to_know(manifest: Manifest) -> None:
    page = (PLUGINS / f"headrace-destination-{manifest.name}" / "README.md").read_text()
    headings = [line.lower() for line in page.splitlines() if line.startswith("## ")]
    missing = [section for section in SECTIONS if not any(section.lower() in heading for heading in headings)]
    assert not missing, f"sections: {', '.join(missing)}"
    named = [*manifest.settings.model_fields, *(field.name for field in manifest.fields)]
    unsaid = [name for name in named if f"`{name}`" not in page]
    assert not unsaid, f"settings or fields: {', '.join(unsaid)}"


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest.name)
def test_every_package_has_types(manifest: Manifest) -> None:
    assert files(manifest.factory.partition(".")[0]).joinpath("py.typed").is_file()


def test_there_is_a_page_for_every_plugin_and_no_other() -> None:
    assert {folder.name.removeprefix("headrace-destination-") for folder in PLUGINS.iterdir() if folder.is_dir()} == {
        manifest.name for manifest in MANIFESTS
    }
