"""Both replicas, Postgres, Redis, the network, clocks and providers fail: nobody is told wrong."""

from tests.faults.schedule import KINDS, draw
from tests.faults.storm import RECOVERY_BOUND, live_through

FAULTS = 20


async def test_a_storm_of_faults_loses_doubles_and_hides_nothing() -> None:
    report = await live_through(seed=7, faults=FAULTS, most_searches=400)

    print(report.rows(), report.faults)
    assert report.complaints == []
    assert report.staged == FAULTS
    assert report.acknowledged > 100
    assert report.searches > 50
    # The bound is of an idle machine; here other tests run beside.
    assert max(report.calm_recoveries) < 3 * RECOVERY_BOUND


def test_a_seed_always_draws_the_same_faults_and_all_kinds() -> None:
    faults = list(draw(1, 200))

    assert faults == list(draw(1, 200))
    assert {fault.kind for fault in faults} == set(KINDS)
