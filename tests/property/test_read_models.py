"""The law of the read models over streams of any records: they say what the ledger's own states say."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from infra.embedded import in_memory
from infra.venue import SimulatedVenue
from ledger.events import Recorded
from tests.property.records_strategy import Stream, play, streams
from tests.unit.read_model_law import hold_to_states


@settings(max_examples=20)
@given(stream=streams(wild=None), every=st.sampled_from([1, 3, 10]))
def test_read_models_say_what_the_states_say(stream: Stream, every: int) -> None:
    shard = in_memory(venue=SimulatedVenue() if stream.venue else None)
    log: list[Recorded] = []
    shard.listeners.append(log.extend)
    for _ in play(stream, shard):
        pass

    hold_to_states(log, every=every, cuts=(len(log) // 2,))
