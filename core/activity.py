"""How much was said with which assistant on which day: counted once, and kept up to date then."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

from storage import timeline
from storage.database import Connection, Pool, acting_as
from storage.timeline import Count, Standing

# Whole weeks that hold a year, whatever day it is.
SPAN = timedelta(days=53 * 7)
# So long what was counted serves, with no change or with few.
AHEAD = timedelta(days=7)
MOST_CHANGES = 1_000
MOST_KEPT = 64
# A year of ten assistants. Who has more is counted anew each time, so that 64 of them stay some
# 30 MB at the very worst.
MOST_COUNTS = 4_000


@dataclass(frozen=True, slots=True)
class Activity:
    assistants: dict[str, int]
    days: dict[date, dict[str, int]]


@dataclass(slots=True)
class _Counted:
    """Who takes it in hand to change it takes it out of what is kept."""

    at: Standing
    first: date
    starts: Sequence[datetime]
    assistants: Counter[str] = field(default_factory=Counter)
    places: dict[int, dict[str, int]] = field(default_factory=dict)

    def add(self, counts: list[Count]) -> None:
        for provider, place, memories in counts:
            self.assistants[provider] += memories
            if self.is_day(place):
                self.places.setdefault(place, {})[provider] = memories

    def drop(self, places: list[int]) -> None:
        for place in places:
            self.assistants.subtract(self.places.pop(place, {}))

    def is_day(self, place: int) -> bool:
        return 0 < place < len(self.starts)

    def serves(self, now: Standing) -> bool:
        at = self.at
        same = (at.epoch, at.purges, at.moves) == (now.epoch, now.purges, now.moves)
        return same and at.today <= now.today < self.first + SPAN + AHEAD

    def shown(self, today: date) -> Activity:
        days = {self.first + timedelta(days=place - 1): self.places[place] for place in self.places}
        shown = sorted(day for day in days if today - SPAN <= day <= today)
        return Activity(
            assistants={name: count for name, count in self.assistants.most_common() if count},
            days={day: dict(days[day]) for day in shown},
        )


class Activities:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._kept: OrderedDict[tuple[UUID, str], _Counted] = OrderedDict()
        self._forgotten = 0

    async def of(self, user_id: UUID, zone: str) -> Activity:
        """Raises UnknownZone."""
        forgotten = self._forgotten
        async with acting_as(self._pool, user_id, at_one_moment=True) as conn:
            now = await timeline.standing(conn, user_id, zone)
            counted = self._kept.pop((user_id, zone), None)
            if counted is None or not await _caught_up(conn, user_id, counted, now):
                counted = await _counted(conn, user_id, zone, now)
        # Whoever was erased meanwhile is not remembered.
        if forgotten == self._forgotten:
            self._keep((user_id, zone), counted)
        return counted.shown(now.today)

    def _keep(self, key: tuple[UUID, str], counted: _Counted) -> None:
        if sum(map(len, counted.places.values())) <= MOST_COUNTS:
            self._kept[key] = counted
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def forget(self, user_id: UUID) -> None:
        self._forgotten += 1
        for key in [key for key in self._kept if key[0] == user_id]:
            del self._kept[key]


async def _counted(conn: Connection, user_id: UUID, zone: str, now: Standing) -> _Counted:
    first = now.today - SPAN
    starts = await timeline.starts_of_days(conn, zone, first, now.today + AHEAD)
    counted = _Counted(now, first, starts)
    counted.add(await timeline.counts(conn, user_id, starts))
    return counted


async def _caught_up(conn: Connection, user_id: UUID, counted: _Counted, now: Standing) -> bool:
    """Count anew the days of what has changed; false where that is not enough."""
    if not counted.serves(now):
        return False
    if counted.at.change_seq == now.change_seq:
        return True
    starts, behind = counted.starts, counted.at.change_seq
    places = await timeline.places_of_changes(conn, user_id, starts, behind, MOST_CHANGES)
    if places is None or not all(map(counted.is_day, places)):
        return False
    counted.drop(places)
    counted.add(await timeline.counts_at(conn, user_id, starts, places))
    counted.at = now
    return True
