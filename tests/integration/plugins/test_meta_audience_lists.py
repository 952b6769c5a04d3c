"""Lists and the permission check of the Meta plugin: pure functions, asked of a fake over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from headrace_destination_meta_audience.destination import MANIFEST, MetaAudience
from headrace_destination_meta_audience.settings import MetaAudienceSettings

from headrace_sdk import ConfigError, Request, Response, TransientError, VendorList
from tests.support.fake_meta import Failure, FakeMeta
from tests.support.vendor_calls import send


@pytest_asyncio.fixture
async def meta() -> AsyncIterator[FakeMeta]:
    fake = FakeMeta(app_secret="app-secret-for-tests")
    await fake.start()
    yield fake
    assert fake.violations == []
    await fake.stop()


def connector(meta: FakeMeta, **more: Any) -> MetaAudience:
    known = {"audience_id": "1234567890", "access_token": meta.token, "app_secret": meta.app_secret}
    return MetaAudience(MetaAudienceSettings(**{**known, "ad_account_id": "42", "base_url": meta.url, **more}))


async def ask(meta: FakeMeta, request: Request) -> Response:
    return await send(request, MANIFEST.auth, {"access_token": meta.token})


async def check(meta: FakeMeta, **more: Any) -> str:
    asked = connector(meta, **more)
    (found,) = asked.check()
    return asked.read_check(found, await ask(meta, found.request))


async def test_customer_lists_are_shown_page_by_page(meta: FakeMeta) -> None:
    meta.audiences = {"1", "2", "3", "4", "5"}
    meta.described = {"2": {"subtype": "LOOKALIKE"}, "4": {"approximate_count_lower_bound": -1}}
    asked = connector(meta)
    found: list[VendorList] = []
    pages = 0
    page: str | None = ""
    while page is not None:
        request = asked.lists(page)
        lists = asked.read_lists(request, await ask(meta, request))
        found += lists.lists
        pages += 1
        page = lists.next_page or None
    assert pages == 3
    assert found == [VendorList(id=n, name=f"Audience {n}", size=None if n == "4" else 1_000) for n in "1345"]


async def test_a_new_list_is_a_customer_list_that_can_be_chosen(meta: FakeMeta) -> None:
    asked = connector(meta, ad_account_id="act_42")
    request = asked.create_list('Bought "twice"')
    (made,) = asked.read_lists(request, await ask(meta, request)).lists
    assert (made.id, made.name) == ("1234567891", 'Bought "twice"')
    assert await check(meta, audience_id=made.id) == ""


async def test_lists_need_an_account(meta: FakeMeta) -> None:
    for wanted in ("", "x"):
        with pytest.raises(ConfigError, match="ad account") as caught:
            asked = connector(meta, ad_account_id="")
            asked.create_list(wanted) if wanted else asked.lists()
        assert caught.value.field == "ad_account_id"


@pytest.mark.parametrize(
    ("described", "part"),
    [
        ({"subtype": "WEBSITE"}, "choose or make another"),
        ({"operation_status": {"code": 471}}, "flagged"),
        ({"permission_for_actions": {"can_edit": False}}, "not change it"),
    ],
)
async def test_audiences_that_cannot_be_changed_are_said(meta: FakeMeta, described: dict[str, Any], part: str) -> None:
    meta.described = {"1234567890": described}
    assert part in await check(meta)


async def test_a_check_says_what_an_error_means(meta: FakeMeta) -> None:
    assert await check(meta) == ""
    assert "gone, blocked or not shared" in await check(meta, audience_id="77")
    assert "app secret" in await check(meta, app_secret=None)
    meta.failures.append(Failure(400, 190, 463, "Error validating access token"))
    assert "access token is not valid" in await check(meta)
    meta.failures.append(Failure(502, html=True))
    assert "502" in await check(meta)


def test_an_answer_that_is_none_is_tried_again() -> None:
    asked = MetaAudience(MetaAudienceSettings(audience_id="1", access_token="t", ad_account_id="2"))
    for request in (asked.lists(), asked.create_list("x")):
        for body in (b"{}", b"<html>", b'{"data": {}}', b'{"id": 7}'):
            with pytest.raises(TransientError):
                asked.read_lists(request, Response(status=200, body=body))


def test_what_is_read_carries_no_token_and_is_masked() -> None:
    asked = MetaAudience(MetaAudienceSettings(audience_id="1", access_token="tok", app_secret="s", ad_account_id="2"))
    (found,) = asked.check()
    for request in (found.request, asked.lists("QVFI UR=="), asked.create_list("x")):
        assert "tok" not in request.url and "Authorization" not in request.headers
        assert request.items == () and len(request.secrets) == 1
    assert "after=QVFI%20UR%3D%3D" in asked.lists("QVFI UR==").url
