"""How long an eviction costs, phase by phase, beside a plain PyTorchJob with restartPolicy OnFailure.

Printed, never asserted against a clock: two machines' times cannot be compared. EVICTIONS is how many of each.
"""

import os

import pytest

from support.recovery_time import PHASES, endless_run, measure, measure_plain, table


@pytest.mark.alone
@pytest.mark.timeout(3600)
def test_the_time_of_each_phase_is_measured_and_printed(story, cluster, capsys):
    evictions = int(os.environ.get("EVICTIONS", "1"))
    told = story("timed").apply(endless_run("timed"))
    recoveries = measure(told, evictions)
    told.cluster.patch("SweepRun", told.name, {"spec": {"request": {"id": "1", "action": "Stop"}}})
    told.wait_condition("Failed")
    restarts = measure_plain(cluster, "timed-plain", evictions)
    with capsys.disabled():
        print("\n" + table(recoveries, restarts))
    assert set(recoveries[0]) >= {*PHASES, "total"}
    assert told.status["counts"]["resumes"] == evictions
