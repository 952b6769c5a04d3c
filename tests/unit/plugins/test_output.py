"""What plugins print: bounded, masked, never blocking."""

from __future__ import annotations

import asyncio

from headrace.plugins.output import Output


async def printed(*chunks: bytes, secrets: tuple[str, ...] = ("s3cret-value",)) -> Output:
    output = Output()
    output.hide(secrets)
    stream = asyncio.StreamReader()
    for chunk in chunks:
        stream.feed_data(chunk)
    stream.feed_eof()
    await output.follow(stream)
    return output


async def test_a_secret_over_two_chunks_is_masked() -> None:
    output = await printed(b"a s3cret", b"-value b\nlast")
    assert output.lines() == ["a ******** b", "last"]


async def test_lines_are_cut_and_their_number_is_bounded() -> None:
    output = await printed(b"x" * 100_000 + b"\n" + b"".join(b"%d\n" % n for n in range(500)))
    assert output.line_count == 501
    assert output.lines()[0] == "300" and len(output.lines()) == 200
    output = await printed(b"y" * 5_000)
    assert output.lines() == ["y" * 1_000]


async def test_the_beginning_of_a_secret_at_a_cut_is_dropped() -> None:
    secret = "k3y" * 700
    output = await printed(secret.encode() * 10 + b"\nnext\n", secrets=(secret,))
    first, second = output.lines()
    assert set(first) <= {"*"} and second == "next"


async def test_bytes_that_are_no_text_do_no_harm() -> None:
    output = await printed(b"\xff\x00\x1b[31m\n\n")
    assert output.lines() == ["\ufffd\ufffd\ufffd[31m", ""]


async def test_what_was_printed_before_a_secret_was_known_is_masked_when_shown() -> None:
    output = await printed(b"later-known\n")
    assert output.lines() == ["later-known"]
    output.hide(["later-known"])
    assert output.lines() == ["********"]
