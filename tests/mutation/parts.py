"""What faults are put in where, and which tests have to notice them."""

from dataclasses import dataclass
from typing import Literal

from core.config import ROOT
from tests.mutation.mutants import (
    OWNERS,
    POLICIES,
    Mutant,
    Rules,
    as_it_is,
    of_python,
    of_text,
)

# Statements of roles that serve everybody: there is no owner to leave out.
FOR_EVERYBODY = {"embedding_queue.py", "admin.py", "admin_access.py", "job_runs.py", "traffic.py"}
FOR_EVERYBODY |= {"retention.py", "missing_users.py", "accounts.py", "inspection.py"}

Postgres = Literal["as it is", "without row-level security", "migrated anew", "none"]


@dataclass(frozen=True)
class Part:
    name: str
    # Of a module all, or only these of its functions, classes and constants.
    places: tuple[tuple[str, tuple[str, ...]], ...]
    tests: tuple[str, ...]
    rules: Rules = ()
    # Migrated by each copy where the schema is what is changed, else once.
    postgres: Literal["as it is", "without row-level security", "migrated anew", "none"] = (
        "as it is"
    )

    def mutants(self) -> list[Mutant]:
        found: list[Mutant] = []
        for name, only in self.places:
            path = ROOT / name
            if path.suffix == ".sql":
                found += of_text(path, name, self.rules)
            else:
                found += of_python(path, name, only, self.rules)
        return found

    def unchanged(self) -> list[Mutant]:
        return [as_it_is(ROOT / name, name) for name, _ in self.places]


def _storage() -> tuple[tuple[str, tuple[str, ...]], ...]:
    paths = sorted((ROOT / "storage").glob("*.py"))
    return tuple((f"storage/{p.name}", ()) for p in paths if p.name not in FOR_EVERYBODY)


def _migrations() -> tuple[tuple[str, tuple[str, ...]], ...]:
    paths = sorted((ROOT / "storage" / "migrations").glob("*.sql"))
    return tuple((f"storage/migrations/{path.name}", ()) for path in paths)


PARTS = (
    Part(
        "auth",
        (("core/auth.py", ()), ("core/jwks.py", ())),
        ("tests/test_tokens.py",),
        postgres="none",
    ),
    Part(
        "limiter",
        (("core/rate_limiter.py", ()), ("storage/counters.py", ())),
        # Those that no slow machine can fail, or it would take a fault for noticed.
        (
            "tests/test_breaker.py",
            "tests/test_limits.py::test_the_twin_decides_as_the_script_does",
            "tests/test_limits.py::test_a_minute_slides_and_a_day_ends_at_midnight",
            "tests/test_limits.py::test_a_minute_slides_in_redis_too",
            "tests/test_limits.py::test_a_replica_on_its_own_spends_its_share_of_what_is_left",
            "tests/test_limits.py::test_users_who_were_not_seen_for_long_are_forgotten",
        ),
        postgres="none",
    ),
    Part(
        "change sequence",
        (
            ("storage/memory_store.py", ("take_numbers", "rows_of", "add")),
            ("core/save_queue.py", ("write_together", "_add", "_merged")),
            ("storage/change_feed.py", ("Position", "position", "since")),
            ("storage/sync.py", ()),
            ("core/sync.py", ()),
        ),
        # Those that start no servers, or a busy machine would be taken for a fault.
        (
            *("tests/test_history.py", "tests/test_saving.py"),
            "tests/test_replicas.py::test_a_reader_of_changes_misses_none_of_ten_thousand_that_commit_late",
            "tests/test_replicas.py::test_batches_of_many_people_in_any_order_never_deadlock",
            "tests/test_replicas.py::test_new_prompts_of_many_are_saved_by_one_statement",
            "tests/test_replicas.py::test_a_page_of_changes_leaves_none_out_however_the_database"
            "_reads_it",
            "tests/test_caches.py::test_who_is_too_large_for_any_cache_finds_the_same_without",
            "tests/test_caches.py::test_a_reader_has_reached_what_was_written_up_to_its_own_number"
            "_in_its_own_epoch",
        ),
    ),
    Part(
        "ownership, the statements",
        _storage(),
        # Of three people who do whatever they like only the short form.
        (
            *("tests/test_first_wall.py", "tests/test_isolation.py", "--steps=600"),
            *("-k", "first_wall or (ever_reaches and faiss)"),
        ),
        OWNERS,
        "without row-level security",
    ),
    Part(
        "ownership, the database",
        _migrations(),
        # Two versions of Postgres more take a minute, and know no other policies.
        ("tests/test_database.py", "tests/test_jobs.py", "-k", "not 16 and not superuser"),
        POLICIES,
        "migrated anew",
    ),
)

# Faults that change nothing anybody could notice, with the reason: the file, the function with its
# line, the fault.
EQUIVALENT = {
    (
        "storage/counters.py",
        '__init__: super().__init__("timed out" if timed_out else "failed")',
        "timed out -> XXtimed out",
    ): "a word of a log line, and these are not put in",
    (
        "storage/counters.py",
        "used: int = 0",
        "0 -> 1",
    ): "a new one is of no day, so that it is set before it is read",
    (
        "storage/counters.py",
        "take_over: self._time += 1",
        "self._time += 1 -> self._time -= 1",
    ): "it is asked only whether it is another",
    ("storage/counters.py", "__init__: self._time = 0", "0 -> 1"): "likewise",
    (
        "storage/counters.py",
        'LUA = """',
        "while oldest and tonumber(oldest) <= now - 60000000 do ->"
        " while oldest and tonumber(oldest) < now - 60000000 do",
    ): "a request of exactly a minute ago counts a microsecond longer",
    (
        "core/auth.py",
        "_check: begins = max(claims.iat, claims.nbf or 0)",
        "0 -> 1",
    ): "no token was issued in the first second of 1970",
    (
        "core/auth.py",
        "remembered: user, until = self._verified.get(digest, (None, 0.0))",
        "0.0 -> 1.0",
    ): "where there is no user it is not looked at",
    (
        "core/auth.py",
        "remembered: if user is None or self._clock() >= until:",
        "self._clock() >= until -> self._clock() > until",
    ): "in that very moment a token that is verified anew is as good",
}
