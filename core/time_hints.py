"""When a question says things happened: "in May 2023", "last March", "two weeks ago"."""

import calendar
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

Period: TypeAlias = tuple[datetime, datetime]

DAY = timedelta(days=1)
MONTHS = {name.lower(): n for n, name in enumerate(calendar.month_name) if n}
WEEKDAYS = {name.lower(): n for n, name in enumerate(calendar.day_name)}
NUMBERS = {
    **{"a": 1, "an": 1, "one": 1, "two": 2, "couple": 2, "three": 3, "few": 3, "four": 4},
    **{"five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11},
    "twelve": 12,
}

_MONTH = rf"(?P<month>{'|'.join(MONTHS)}|{'|'.join(name[:3] for name in MONTHS)}|sept)\b\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?\b"
_YEAR = r"(?P<year>(?:19|20)\d\d)\b"
_COUNT = rf"(?P<count>\d{{1,3}}|{'|'.join(NUMBERS)})"


def period(query: str, now: datetime) -> Period | None:
    """Return the time the query names, from (included) to (excluded), in UTC; the first kind of
    expression that is found counts. A month or a day without its year is the last one before
    `now`."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for pattern, meaning in _EXPRESSIONS:
        if match := pattern.search(query):
            try:
                return meaning(match.groupdict(), today)
            except (ValueError, OverflowError):
                continue  # 31 February, or the year 0
    return None


def _date(found: dict[str, str], today: datetime) -> Period:
    month, day = _month_number(found["month"]), int(found["day"])
    if found.get("year"):
        start = datetime(int(found["year"]), month, day, tzinfo=UTC)
    else:
        start = today.replace(month=month, day=day)
        if start > today:
            start = start.replace(year=start.year - 1)
    return start, start + DAY


def _month_of(found: dict[str, str], today: datetime) -> Period:
    month = _month_number(found["month"])
    year = int(found["year"]) if found.get("year") else today.year - (month > today.month)
    return _months(year * 12 + month - 1, 1)


def _year_of(found: dict[str, str], _: datetime) -> Period:
    return _months(int(found["year"]) * 12, 12)


def _ago(found: dict[str, str], today: datetime) -> Period:
    """A count of weeks, months or years ago is meant roughly: half a unit to either side."""
    count = NUMBERS.get(found["count"].lower()) or int(found["count"])
    unit = found["unit"].lower()
    if unit == "day":
        return today - count * DAY, today - (count - 1) * DAY
    days = {"week": 7, "month": 30, "year": 365}[unit]
    middle, slack = today - count * days * DAY, timedelta(days=days // 2)
    return middle - slack, middle + slack + DAY


def _unit(found: dict[str, str], today: datetime) -> Period:
    back = 0 if found["which"].lower() == "this" else 1
    unit = found["unit"].lower()
    if unit == "week":
        start = today - (today.weekday() + 7 * back) * DAY
        return start, start + 7 * DAY
    if unit == "month":
        return _months(today.year * 12 + today.month - 1 - back, 1)
    return _months((today.year - back) * 12, 12)


def _weekday(found: dict[str, str], today: datetime) -> Period:
    days = (today.weekday() - WEEKDAYS[found["weekday"].lower()] - 1) % 7 + 1
    return today - days * DAY, today - (days - 1) * DAY


def _near(found: dict[str, str], today: datetime) -> Period:
    start = today - DAY * (found["near"].lower() == "yesterday")
    return start, start + DAY


def _months(first: int, count: int) -> Period:
    """Months are counted from January of the year 0."""
    stop = first + count
    return (
        datetime(first // 12, first % 12 + 1, 1, tzinfo=UTC),
        datetime(stop // 12, stop % 12 + 1, 1, tzinfo=UTC),
    )


def _month_number(name: str) -> int:
    if name.isdigit():
        return int(name)
    return next(n for full, n in MONTHS.items() if full.startswith(name.lower()[:3]))


def _expression(
    pattern: str, meaning: Callable[[dict[str, str], datetime], Period]
) -> tuple[re.Pattern[str], Callable[[dict[str, str], datetime], Period]]:
    return re.compile(rf"\b{pattern}", re.IGNORECASE), meaning


# The most exact first. A month alone needs a word before it: "may" and "march" are also verbs.
_EXPRESSIONS = (
    _expression(r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)\b", _date),
    _expression(rf"{_DAY}(?: of)? {_MONTH}(?:,? {_YEAR})?", _date),
    _expression(rf"{_MONTH} {_DAY}(?:,? {_YEAR})?", _date),
    _expression(rf"{_MONTH},? (?:of )?{_YEAR}", _month_of),
    _expression(
        rf"(?:in|last|during|since|this|early|late|mid|until|by|of)[ -]{_MONTH}", _month_of
    ),
    _expression(rf"{_COUNT}(?: of)? (?P<unit>day|week|month|year)s? ago\b", _ago),
    _expression(r"(?P<which>last|this|past|previous) (?P<unit>week|month|year)\b", _unit),
    _expression(rf"(?:last|on|this) (?P<weekday>{'|'.join(WEEKDAYS)})\b", _weekday),
    _expression(r"(?P<near>today|yesterday)\b", _near),
    _expression(rf"(?:in|during|since|of) {_YEAR}", _year_of),
)
