"""Counting what users spend: a sliding minute and a UTC day, as one Lua script and its twin."""

import time
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

# All times are microseconds since the epoch.
MINUTE = 60_000_000
DAY = 86_400_000_000
ALLOWED, DAY_SPENT, TOO_FAST = 0, 1, 2
NO_MINUTE = -1
MOST_USERS = 50_000


class Ask(NamedTuple):
    """One request of a user, or of what else is counted. `used` is what is known elsewhere of `day`
    (days since the epoch).

    A `cost` of 0 looks and spends nothing. Where only the day counts `per_minute` is NO_MINUTE.
    """

    user_id: UUID | str
    per_minute: int
    per_day: int
    day: int
    used: int
    cost: int = 1


class Count(NamedTuple):
    """What stands after the request. `free_at`: when the minute has room again."""

    verdict: int
    used_today: int
    used_in_minute: int
    free_at: int
    now: int


class CountersAway(Exception):
    """The counters of all replicas could not be asked; `timed_out` when they did not answer."""

    def __init__(self, *, timed_out: bool) -> None:
        super().__init__("timed out" if timed_out else "failed")
        self.timed_out = timed_out


# KEYS: the minute's log, the day's counter. ARGV: Ask without its user. The log is a list, since
# its times only grow: a tenth of a sorted set's memory. The counter's time to live is one ms
# short of midnight, because a key still lives in the millisecond that it expires at. What a
# process counted while this server was away, or what Postgres remembers, comes in with `used`.
LUA = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local today = math.floor(now / 86400000000)
local per_minute, per_day, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])
local used = tonumber(redis.call('GET', KEYS[2]) or 0)
if tonumber(ARGV[3]) == today then used = math.max(used, tonumber(ARGV[4])) end
local oldest = redis.call('LINDEX', KEYS[1], 0)
while oldest and tonumber(oldest) <= now - 60000000 do
    redis.call('LPOP', KEYS[1])
    oldest = redis.call('LINDEX', KEYS[1], 0)
end
local recent = redis.call('LLEN', KEYS[1])
local verdict = 0
if cost > 0 and used + cost > per_day then
    verdict = 1
elseif per_minute >= 0 and recent >= per_minute then
    verdict = 2
elseif cost > 0 then
    used = used + cost
    redis.call('SET', KEYS[2], string.format('%.0f', used), 'PXAT', (today + 1) * 86400000 - 1)
    if per_minute >= 0 then
        recent = recent + 1
        redis.call('RPUSH', KEYS[1], string.format('%.0f', now))
        redis.call('PEXPIRE', KEYS[1], 60000)
    end
end
local leaving = redis.call('LINDEX', KEYS[1], math.max(recent - per_minute, 0)) or now
return {verdict, used, recent, leaving + 60000000, now}
"""


@dataclass(slots=True)
class _Use:
    day: int = -1
    time: int = 0
    before: int = 0
    used: int = 0
    log: "array[int]" = field(default_factory=lambda: array("q"))


def _microseconds() -> int:
    return time.time_ns() // 1_000


class LocalCounters:
    """The script's twin for one process, which may spend one of `shares` of what is left.

    Users are forgotten least recently used first; their day then goes on from `Ask.used`.
    """

    def __init__(
        self,
        shares: int = 1,
        clock: Callable[[], int] = _microseconds,
        most_users: int = MOST_USERS,
    ) -> None:
        self._shares = shares
        self._clock = clock
        self._most_users = most_users
        self._users: OrderedDict[UUID | str, _Use] = OrderedDict()
        self._time = 0

    def take_over(self) -> None:
        """Begin to count alone: days go on from `Ask.used`. Minutes that were counted here before
        stay, or a shared counter that comes and goes would give a new minute each time."""
        self._time += 1

    def forget(self, user_id: UUID | str) -> None:
        self._users.pop(user_id, None)

    def spend(self, ask: Ask) -> Count:
        now = self._clock()
        use = self._use_of(ask, now // DAY)
        log = use.log
        if log:
            # Times to come are left by a clock that was set back.
            del log[: len(log) if log[-1] > now else bisect_right(log, now - MINUTE)]
        per_minute, per_day, cost = ask.per_minute, ask.per_day, ask.cost
        if self._shares > 1:
            per_minute = -(-per_minute // self._shares)
            per_day = use.before - (use.before - per_day) // self._shares
        recent = len(log)
        verdict = ALLOWED
        if cost > 0 and use.used + cost > per_day:
            verdict = DAY_SPENT
        elif recent >= per_minute >= 0:
            verdict = TOO_FAST
        elif cost > 0:
            use.used += cost
            if per_minute >= 0:
                recent += 1
                log.append(now)
        next_out = recent - per_minute if recent > per_minute else 0
        leaving = log[next_out] if next_out < recent else now
        return Count(verdict, use.used, recent, leaving + MINUTE, now)

    def _use_of(self, ask: Ask, today: int) -> _Use:
        use = self._users.get(ask.user_id)
        if use is None:
            use = self._users[ask.user_id] = _Use()
            if len(self._users) > self._most_users:
                self._users.popitem(last=False)
        else:
            self._users.move_to_end(ask.user_id)
        if use.day != today or use.time != self._time:
            use.day, use.time = today, self._time
            use.used = use.before = ask.used if ask.day == today else 0
        return use
