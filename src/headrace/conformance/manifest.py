"""Checks of what a connector says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

from headrace.conformance.bench import ADD, DELETE, REMOVE, Bench
from headrace.conformance.checks import CheckFailed, check, require
from headrace.plugins.errors import PluginConfigError, PluginError
from headrace.plugins.mapping import MappingError, compile_mapping
from headrace_sdk import Basic, OAuth2
from headrace_sdk.auth import AwsSignature, settings_of
from headrace_sdk.samples import Fill, SampleError

_SECRET_WORDS = frozenset({"secret", "token", "password", "passphrase", "apikey", "credentials"})
_SECRET_ENDINGS = ("api_key", "private_key", "secret_key", "access_key", "write_key")
_UNKNOWN = "no_setting_is_called_so"


@check("manifest.loads", "The plugin loads and its manifest holds together.", "Read the reason, mend it, try again.")
def _loads(bench: Bench) -> str:
    info = bench.info
    return f"{info.name} of {info.plugin} {info.version}"


@check(
    "manifest.titles",
    "The connector has a title and a sentence that describes it.",
    "Give the manifest a title, and a description that ends with a full stop.",
)
def _titles(bench: Bench) -> str:
    info = bench.info
    require(info.title.strip(), "title is empty")
    require(info.description.strip(), "description is empty")
    require(info.description.rstrip().endswith("."), "description is no sentence: it ends without a full stop")
    return f"{info.title}: {info.description}"


def _fields_needed(bench: Bench) -> str:
    return "" if bench.info.fields else "fields"


@check(
    "manifest.fields",
    "Each field has a title of its own.",
    "Give each Field a title for people: the console's form and the docs page are made of them.",
    _fields_needed,
)
def _fields(bench: Bench) -> str:
    titles = [field.title for field in bench.info.fields]
    bare = [field.name for field in bench.info.fields if not field.title.strip()]
    require(not bare, f"without a title: {', '.join(bare)}")
    twice = sorted({title for title in titles if titles.count(title) > 1})
    require(not twice, f"the same title for several fields: {', '.join(twice)}")
    return f"{len(titles)} fields"


@check(
    "manifest.settings",
    "Each setting has a title and a description in the JSON Schema.",
    'Write Field(..., title="...", description="...") for each setting.',
)
def _settings(bench: Bench) -> str:
    settings = _properties(bench)
    bare = [name for name, node in settings.items() if not node.get("title") or not _described(bench, node)]
    require(not bare, f"without title or description: {', '.join(bare)}")
    return f"{len(settings)} settings"


@check(
    "manifest.secrets",
    "Secrets among the settings are marked as such.",
    "Make the setting a SecretStr: it is then sealed, masked and never shown again.",
)
def _secrets(bench: Bench) -> str:
    settings = _properties(bench)
    marked = {name for name, node in settings.items() if any(inner.get("writeOnly") for inner in _nodes(bench, node))}
    due = {name for name in settings if _sounds_secret(name)} | _secret_credentials(bench)
    open_ones = sorted(due - marked)
    require(not open_ones, f"not marked: {', '.join(open_ones)}")
    return f"{len(marked)} secrets"


@check(
    "manifest.unknown-settings",
    "A setting that does not exist is refused.",
    'Give the settings model model_config = ConfigDict(extra="forbid"): a slip of the pen is then seen at once.',
)
def _unknown_settings(bench: Bench) -> str:
    instance = None
    try:
        instance = bench.run(bench.host.open(bench.info.name, {**bench.settings, _UNKNOWN: "x"}))
    except PluginConfigError as error:
        return error.reason
    finally:
        if instance is not None:
            bench.run(instance.close())
    raise CheckFailed("a setting with an unknown name was taken")


def _any_of_needed(bench: Bench) -> str:
    return "" if bench.info.any_of else "any_of"


@check(
    "manifest.any-of",
    "Each group of which an item needs one has several fields, none of which is required anyhow.",
    "Make a field that stands alone required=True, and leave required ones out of any_of.",
    _any_of_needed,
)
def _any_of(bench: Bench) -> str:
    required = {field.name for field in bench.info.fields if field.required}
    for group in bench.info.any_of:
        require(len(set(group)) > 1, f"a group has the field {', '.join(group)} alone")
        require(not required & set(group), f"a group has a required field: {', '.join(required & set(group))}")
    return f"{len(bench.info.any_of)} groups"


@check(
    "manifest.limits",
    "Batches, limits, time-outs and retries are such as a delivery can live with.",
    "Correct the number: waits in seconds, sizes in bytes.",
)
def _limits(bench: Bench) -> str:
    info = bench.info
    require(info.batch.max_wait_s <= 3_600, "an item may wait longer than an hour for company")
    require(info.batch.max_bytes <= 128_000_000, "a request may be larger than 128 MB, which the host cannot carry")
    require(info.timeout_s <= 600, "the vendor has longer than ten minutes to answer")
    require(0 < info.retry.base_s <= info.retry.cap_s, "the first wait is longer than the longest one, or none")
    require(info.retry.cap_s <= info.retry.max_age_s, "the longest wait is longer than an item is kept")
    require(info.concurrency <= 256, "more than 256 requests are under way at a time")
    return f"at most {info.batch.max_items} items, {len(info.limits)} rate limits"


def _versions_needed(bench: Bench) -> str:
    return "" if bench.info.versions else "versions"


@check(
    "manifest.versions",
    "The version of the vendor's API has a default, whose end, where the connector knows it, is not past.",
    "Put versions and the days of their ends into ApiVersions; move to a later version before that day.",
    _versions_needed,
)
def _versions(bench: Bench) -> str:
    versions = bench.info.versions
    assert versions is not None
    default = _properties(bench).get(versions.setting, {}).get("default")
    require(isinstance(default, str) and default, f"the setting {versions.setting} has no default")
    end = versions.end_of(str(default))
    require(end is None or end > _today(), f"version {default} ended on {end}")
    return f"{default}, which ends on {end}" if end else f"{default}, whose end the connector does not know"


def _list_setting_needed(bench: Bench) -> str:
    return "" if "list_sync" in bench.info.capabilities else "list_sync"


@check(
    "manifest.list-setting",
    "The setting that names the vendor's list is declared: a text or a whole number, and no secret.",
    "Name it in list_setting: syncs can then name lists of their own. Who shows lists has such a setting.",
    _list_setting_needed,
)
def _list_setting(bench: Bench) -> str:
    name = bench.info.list_setting
    if not name:
        require("lists" not in bench.info.capabilities, "it shows lists, and does not say which setting takes one")
        return "a destination has one list alone"
    node = _properties(bench).get(name, {})
    kinds = {one.get("type") for inner in _nodes(bench, node) for one in (inner, *inner.get("anyOf", ()))}
    require(kinds & {"string", "integer"}, f"{name} is neither a text nor a whole number")
    require(not any(inner.get("writeOnly") for inner in _nodes(bench, node)), f"{name} is a secret")
    return name


@check(
    "manifest.mappings",
    "The mapping expressions that fields propose can be read.",
    "Correct the expression: docs/guides/connectors.md has the language and its functions.",
    _fields_needed,
)
def _mappings(bench: Bench) -> str:
    try:
        compile_mapping(None, bench.info)
    except MappingError as error:
        raise CheckFailed(str(error)) from None
    return f"{sum(bool(field.default) for field in bench.info.fields)} expressions"


@check(
    "manifest.samples",
    "Settings and items made from the manifest are taken; with the required fields alone, or the skip names one.",
    "Give fields and settings examples; name every field without which an item is skipped in required or any_of.",
)
def _samples(bench: Bench) -> str:
    try:
        assert bench.instance
    except SampleError as error:
        raise CheckFailed(str(error)) from None
    for call in bench.calls():
        whole = bench.build(bench.batch(call, 1))
        tried = {"all": whole} if call == DELETE else {"all": whole, "the required": bench.required(call)[1]}
        for which, found in tried.items():
            for skip in found.skipped:
                asked_for = which != "all" and skip.field in {field.name for field in bench.info.fields}
                require(asked_for, f"{call}: an item with {which} fields is skipped: {skip.reason}")
            if call in (ADD, REMOVE) and which != "all" and bench.left_out(Fill.REQUIRED):
                continue
            require(found.requests or found.skipped, f"{call}: no request for an item with {which} fields")
    return ", ".join(bench.calls())


@check(
    "manifest.capabilities",
    "Each capability that is declared is there.",
    "Write the method that the reason names, or take the capability out of the manifest.",
)
def _capabilities(bench: Bench) -> str:
    capabilities = bench.info.capabilities
    try:
        for call in bench.calls():
            bench.build(bench.batch(call, 1))
        if "check" in capabilities:
            bench.run(bench.instance.check())
        if "lists" in capabilities:
            bench.run(bench.instance.lists())
            bench.run(bench.instance.create_list("Conformance"))
    except PluginError as error:
        raise CheckFailed(error.reason) from None
    if ADD in bench.calls() and not bench.info.removes:
        return f"{', '.join(sorted(capabilities))}, without removal"
    return ", ".join(sorted(capabilities))


def _today() -> date:
    return datetime.now(UTC).date()


def _properties(bench: Bench) -> Mapping[str, Any]:
    found = bench.info.settings_schema.get("properties", {})
    return found if isinstance(found, Mapping) else {}


def _described(bench: Bench, node: Mapping[str, Any]) -> bool:
    return any(inner.get("description") for inner in _nodes(bench, node))


def _nodes(bench: Bench, node: Mapping[str, Any], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """A node of the schema and what it is made of, through references and alternatives."""
    yield node
    if depth > 4:
        return
    inner = [alternative for kind in ("anyOf", "oneOf", "allOf") for alternative in node.get(kind, ())]
    if "$ref" in node:
        definitions = bench.info.settings_schema.get("$defs", {})
        inner.append(definitions.get(str(node["$ref"]).rpartition("/")[2], {}))
    inner += [node[kind] for kind in ("items", "additionalProperties") if isinstance(node.get(kind), Mapping)]
    for one in inner:
        yield from _nodes(bench, one, depth + 1)


def _sounds_secret(name: str) -> bool:
    words = name.lower().split("_")
    return words[-1] in _SECRET_WORDS or name.lower().endswith(_SECRET_ENDINGS)


def _secret_credentials(bench: Bench) -> set[str]:
    """Settings that the authentication reads and that are secret."""
    auth = bench.info.auth
    if auth is None:
        return set()
    open_ones: set[str] = set()
    if isinstance(auth, Basic):
        open_ones = {auth.username}
    elif isinstance(auth, OAuth2):
        open_ones = {auth.client_id, auth.token_url.removeprefix("setting:")}
    elif isinstance(auth, AwsSignature):
        open_ones = {auth.access_key, auth.region}
    elif hasattr(auth, "subject"):
        open_ones = {auth.subject}
    if isinstance(auth, Basic) and not auth.password:
        open_ones = set()  # the user name is the key
    return set(settings_of(auth)) - open_ones
