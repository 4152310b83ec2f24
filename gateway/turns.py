"""Which response a provider's message belongs to: those that were asked for, and those that are under way.

In the Realtime API an event names its response or its item, and responses are made in the order in which they were
asked for, besides those that the provider makes by itself. In Responses an event has a lane (`stream_id`), and a lane
has one response after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.audit.record import Outcome

if TYPE_CHECKING:
    from gateway.turn import Turn
    from gateway.uplink import Uplink
    from translators.realtime_answers import ServerEvent


class Turns:
    """The turns of one conversation that are not over. `dropping` are those whose messages go nowhere any more."""

    def __init__(self, peer: str, *, realtime: bool) -> None:
        self._peer = peer
        self._realtime = realtime
        self._asked: list[tuple[Uplink, Turn]] = []
        self._under_way: dict[str, Turn] = {}
        self._lanes: dict[tuple[Uplink, str | None], Turn] = {}
        self._items: dict[str, Turn] = {}
        self.dropping: set[Turn] = set()
        self.latest: Turn | None = None
        """The one under way that has begun last: to it is counted what is forwarded unread."""

    def __repr__(self) -> str:
        return f"<Turns: {len(self._asked)} asked for, {len(self._under_way)} under way>"

    def __len__(self) -> int:
        return len(self._asked) + len(self._under_way)

    @property
    def reads(self) -> bool:
        """Some response must be read message by message."""
        return any(turn.reads for turn in self._under_way.values())

    @property
    def buffers(self) -> bool:
        """Some response is kept until its verdict, its audio too."""
        return any(turn.reads and turn.buffers for turn in self._under_way.values())

    def ask(self, uplink: Uplink, turn: Turn) -> None:
        """A response has been asked for."""
        self._asked.append((uplink, turn))

    def asked(self, uplink: Uplink, event: ServerEvent) -> Turn | None:
        """The turn of a response that begins; None: nobody has asked for it."""
        for place, (where, turn) in enumerate(self._asked):
            if where is uplink and (self._realtime or turn.stream_id == event.stream_id):
                del self._asked[place]
                return turn
        return None

    def begin(self, uplink: Uplink, turn: Turn, event: ServerEvent) -> None:
        """The response of a turn has begun. One of the same name that has not ended never will."""
        turn.response_id = event.of_response or ""
        forgotten = self._under_way.get(turn.response_id)
        if forgotten is not None:
            self.finish(forgotten, Outcome.FAILED, 502, "upstream_invalid")
        turn.stream_id = event.stream_id
        self._under_way[turn.response_id] = self.latest = turn
        self._lanes[uplink, event.stream_id] = turn

    def of(self, uplink: Uplink, event: ServerEvent) -> Turn | None:
        """The turn under way that an event belongs to; None: to none."""
        named = event.of_response
        if named is not None:
            turn = self._under_way.get(named)
            if turn is not None and event.of_item is not None:
                self._items[event.of_item] = turn
            return turn
        if self._realtime:
            return self._items.get(event.of_item or "")
        return self._lanes.get((uplink, event.stream_id))

    @property
    def under_way(self) -> list[Turn]:
        """Those whose responses have begun."""
        return list(self._under_way.values())

    def of_response(self, response_id: str | None) -> Turn | None:
        """The turn under way with this response."""
        return self._under_way.get(response_id or "")

    def failed(self, uplink: Uplink, event: ServerEvent) -> Turn | None:
        """The turn that an error event is about: one that was asked for and has not begun or, in Responses, the one
        that its lane is in. There an error within a response has its place in the response's sequence."""
        about = event.error.event_id if event.error is not None else None
        speaking = None if self._realtime else self._lanes.get((uplink, event.stream_id))
        if speaking is None or event.sequence_number is None:
            for place, (where, turn) in enumerate(self._asked):
                same = turn.event_id == about if self._realtime else turn.stream_id == event.stream_id
                if where is uplink and same:
                    del self._asked[place]
                    return turn
        return speaking

    def finish(self, turn: Turn, outcome: Outcome, status: int, code: str | None) -> None:
        """A turn is over."""
        turn.finish(outcome, status, code, peer=self._peer)
        self.dropping.discard(turn)
        if self.latest is turn:
            self.latest = None
        if turn.response_id is not None and self._under_way.get(turn.response_id) is turn:
            del self._under_way[turn.response_id]
        self._items = {item: one for item, one in self._items.items() if one is not turn}
        self._lanes = {lane: one for lane, one in self._lanes.items() if one is not turn}

    def finish_all(
        self, outcome: Outcome, status: int, code: str | None, *, uplink: Uplink | None = None
    ) -> list[Turn]:
        """All turns are over, or all of one provider's socket. Which they were."""
        asked = [turn for where, turn in self._asked if uplink is None or where is uplink]
        begun = [turn for (where, _), turn in self._lanes.items() if uplink is None or where is uplink]
        under_way = begun if uplink is not None else list(self._under_way.values())
        self._asked = [one for one in self._asked if one[1] not in asked]
        for turn in [*asked, *under_way]:
            self.finish(turn, outcome, status, code)
        return [*asked, *under_way]
