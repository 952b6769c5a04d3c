"""Shards of people, read from files and asked one by one, give what all people at once give; without any cluster."""

from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from headrace_audience.archive import layout
from headrace_audience.archive.files import Files
from headrace_audience.archive.view import merged_table
from headrace_audience.batch import queries
from headrace_audience.distributed.shards import (
    Limits,
    Piece,
    Question,
    Source,
    answers_of,
    blocks_of,
    stream_of,
)
from headrace_audience.language.definition import Definition
from headrace_audience.offline.facts import resolved_of
from headrace_audience.offline.reference import Audiences, Reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.domain.ids import partition_of
from tests.support import audience_histories as random
from tests.support.examples import examples

SHARDS = 3
LIMITS = Limits(memory_mb=256)
QUICK = settings(max_examples=examples(12), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@QUICK
@given(r=st.randoms(use_true_random=False))
@random.anywhen
def test_shards_give_the_members_of_the_reference(r: Random) -> None:
    definitions = random.audiences(r)
    audiences: Audiences = {**definitions, "nobody": ["p", "somebody else"]}
    facts = random.history(r)
    asked = [Question(name, definition, random.moment(r)) for name, definition in definitions.items()]
    found: dict[str, list[queries.Outlook]] = {question.key: [] for question in asked}
    with TemporaryDirectory() as folder:
        source = Source(folder, [], merged_table([]))
        pieces: list[Piece] = []
        table = layout.event_table([resolved_of(fact) for fact in facts])
        cut = r.randint(0, len(facts))
        # An event may be in two files, and in the log too.
        for number, part in enumerate((table[:cut], table[max(0, cut - 2) :])):
            Files(folder).write(f"{number}.parquet", part, layout.SORT_KEYS[layout.EVENTS])
            pieces.append(Piece(paths=(f"{number}.parquet",)))
        pieces.append(Piece(tail=stream_of(table[:1].select(layout.TAIL_SCHEMA.names))))
        blocks = [b for piece in pieces for b in blocks_of(piece, source, _all(asked, audiences), SHARDS, LIMITS)]
    for shard in range(SHARDS):
        own = [rows for number, rows in blocks if number == shard]
        for key, outlook in answers_of(own, asked, audiences, queries.outlook, LIMITS):
            assert {o.profile for o in outlook} <= {
                f.profile for f in facts if partition_of(f.profile, SHARDS) == shard
            }
            found[key] += outlook
    reference = Reference(facts, audiences)
    for question in asked:
        members = sorted(found[question.key], key=lambda o: o.profile)
        assert [o.profile for o in members] == reference.members(question.definition, question.at_us)
        assert [(o.since_us, o.changes_at_us) for o in members] == [
            (
                reference.since(question.definition, o.profile, question.at_us),
                reference.next_change(question.definition, o.profile, question.at_us),
            )
            for o in members
        ]


def _all(questions: list[Question], audiences: Audiences) -> list[Definition]:
    return [q.definition for q in questions] + [a for a in audiences.values() if isinstance(a, Definition)]


def test_merged_people_are_in_the_shard_of_their_survivor(tmp_path: Path) -> None:
    facts = [random.fact(Random(n), n) for n in range(60)]
    table = layout.event_table([resolved_of(fact) for fact in facts])
    Files(str(tmp_path)).write("a.parquet", table, layout.SORT_KEYS[layout.EVENTS])
    source = Source(str(tmp_path), ["r"], merged_table([("p", "q")]))
    definition = random.asked_one(Random(0)).last
    blocks = list(blocks_of(Piece(paths=("a.parquet",)), source, [definition], 64, LIMITS))
    # Of "r" the files say nothing that is to be believed.
    assert {shard for shard, _ in blocks} == {partition_of("q", 64)}
