"""The library's mapper over our events: a `Recorded` is the domain event, and carries its place in the log.

What an event's bytes are is `ledger.encoding`'s to say. This file never touches a database.
"""

from __future__ import annotations

from typing import Any

from eventsourcing.persistence import Mapper, Notification, StoredEvent

from ledger.encoding import decode, encode
from ledger.events import Event, Recorded


class EventMapper(Mapper[str]):
    """The library's mapper over our events; a `Recorded` is the domain event, and carries its place in the log."""

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        """The row of a recorded event."""
        event: Event = domain_event.event
        return StoredEvent(domain_event.originator_id, domain_event.originator_version, event.TOPIC, encode(event))

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        """The recorded event of a row; position 0 where the row was read by stream and not from the log."""
        position = stored_event.id if isinstance(stored_event, Notification) else 0
        return Recorded(position, str(stored_event.originator_id), stored_event.originator_version,
                        decode(stored_event.topic, stored_event.state))
