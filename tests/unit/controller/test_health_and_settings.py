"""Probes tell trouble from waiting; settings refuse what they do not understand and say which variable."""

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from sweeprun_operator.controller.health import LEAST_PATIENCE_SECONDS, SILENCE_SECONDS, Health
from sweeprun_operator.handlers.doorbell import make_settings, owner
from sweeprun_operator.handlers.probes import Probes
from sweeprun_operator.settings import LogFormat, PullPolicy, Settings, SettingsError

NEEDED = {
    "SWEEPRUN_OPERATOR_IMAGE": "registry/sweeprun:1",
    "SWEEPRUN_OPERATOR_LEASE_NAMESPACE": "system",
    "SWEEPRUN_OPERATOR_NAMESPACES": "a, b,a",
}


WELL = (lambda: 0.0, lambda: ("/pods", 70.0))
"""The doorbell's loop turns, and each watch had a bookmark."""


@pytest.fixture
def health(clock):
    return Health(monotonic=clock, resync_seconds=180)


def test_waiting_for_the_lease_is_healthy_and_not_ready(health, clock):
    clock.now += 10**6
    assert health.trouble() is None
    assert "Lease" in health.unready()


def test_it_is_ready_after_the_first_list(health):
    health.leads(*WELL)
    assert "first list" in health.unready()
    health.resynced()
    assert health.unready() is None


def test_an_api_server_that_is_away_for_long_is_trouble(health, clock):
    health.leads(*WELL)
    health.resynced()
    clock.now += LEAST_PATIENCE_SECONDS
    assert health.trouble() is None
    clock.now += 1
    assert "no complete list" in health.trouble()
    health.resynced()
    assert health.trouble() is None


def test_watches_that_do_not_turn_are_trouble(health):
    silent = [SILENCE_SECONDS]
    health.leads(lambda: silent[0], lambda: ("", 0.0))
    health.resynced()
    assert health.trouble() is None
    silent[0] += 1
    assert "silent" in health.trouble()


def test_a_watch_that_hears_nothing_is_trouble(health):
    deaf = [LEAST_PATIENCE_SECONDS]
    health.leads(lambda: 0.0, lambda: ("/api/v1/pods", deaf[0]))
    health.resynced()
    assert health.trouble() is None
    deaf[0] += 1
    assert "the watch of /api/v1/pods has heard nothing for 601 s" in health.trouble()


async def test_the_probes_answer(health):
    registry = CollectorRegistry()
    async with (
        Probes(health=health, registry=registry, health_port=0, metrics_port=0, host="127.0.0.1") as probes,
        aiohttp.ClientSession() as session,
    ):
        (host, port), (_, metrics_port) = probes.addresses

        async def ask(path, at=port):
            async with session.get(f"http://{host}:{at}{path}") as answer:
                return answer.status

        assert await ask("/healthz") == 200
        assert await ask("/readyz") == 503
        health.leads(*WELL)
        health.resynced()
        assert await ask("/readyz") == 200
        assert await ask("/metrics", metrics_port) == 200
        assert await ask("/metrics") == 404


def test_settings_have_defaults_for_all_but_three():
    settings = Settings.read(NEEDED)
    assert settings.namespaces == ("a", "b")
    assert settings.image_pull_policy is PullPolicy.IF_NOT_PRESENT
    assert settings.log_format is LogFormat.JSON
    assert settings.kubeconfig is None


def test_a_star_is_every_namespace():
    assert Settings.read({**NEEDED, "SWEEPRUN_OPERATOR_NAMESPACES": "*"}).namespaces is None


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_needed_is_asked_for_by_name(name):
    with pytest.raises(SettingsError, match=name):
        Settings.read({**NEEDED, name: ""})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NAMESPACES", "a,*"),
        ("NAMESPACES", "A"),
        ("NAMESPACES", ","),
        ("RESYNC_SECONDS", "0"),
        ("RESYNC_SECONDS", "1.5"),
        ("WORKERS", "-1"),
        ("PREPARES", "0"),
        ("PREPARES_PER_NAMESPACE", "0"),
        ("HEALTH_PORT", "70000"),
        ("LOG_FORMAT", "xml"),
        ("IMAGE_PULL_POLICY", "Sometimes"),
    ],
)
def test_what_is_not_understood_is_refused(name, value):
    with pytest.raises(SettingsError, match=f"SWEEPRUN_OPERATOR_{name}"):
        Settings.read({**NEEDED, f"SWEEPRUN_OPERATOR_{name}": value})


def test_a_childs_label_names_its_run():
    assert str(owner("n", {"sweeprun.dev/name": "r"})) == "n/r"


@pytest.mark.parametrize(("namespace", "labels"), [("n", {}), ("n", None), (None, {"sweeprun.dev/name": "r"})])
def test_what_has_no_label_rings_for_nobody(namespace, labels):
    assert owner(namespace, labels) is None


def test_children_are_selected_on_the_server():
    selectors = make_settings().watching.label_selectors
    assert {kind: selectors[kind] for kind in ("pods", "jobs", "pytorchjobs")} == dict.fromkeys(
        ("pods", "jobs", "pytorchjobs"), "sweeprun.dev/uid"
    )
