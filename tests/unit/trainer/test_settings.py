"""What people may set for the entrypoint."""

import pytest

from sweeprun_protocol.environ import EnvironError
from sweeprun_trainer.settings import Settings


def test_without_anything_the_defaults_hold():
    assert Settings.read({}) == Settings()


@pytest.mark.parametrize("name", ["SWEEPRUN_PORT", "SWEEPRUN_HOST", "SWEEPRUN_FENCE_SECONDS"])
def test_empty_means_not_set(name):
    assert Settings.read({name: ""}) == Settings()


def test_what_is_set_is_taken():
    given = Settings.read(
        {
            "SWEEPRUN_PORT": "9000",
            "SWEEPRUN_HOST": "127.0.0.1",
            "SWEEPRUN_TERMINATION_LOG": "/tmp/message",
            "SWEEPRUN_FENCE_SECONDS": "0.5",
            "SWEEPRUN_SAMPLE_SECONDS": "2",
            "SWEEPRUN_SETTLE_SECONDS": "0",
        }
    )
    assert given == Settings(9000, "127.0.0.1", "/tmp/message", 0.5, 2.0, 0.0)
    assert Settings.read({"SWEEPRUN_PORT": "off"}).port is None


@pytest.mark.parametrize("text", ["-1", "65536", "http", "8799.0", "²", "1" * 30])
def test_a_port_that_is_none_is_refused_by_name(text):
    with pytest.raises(EnvironError, match="SWEEPRUN_PORT"):
        Settings.read({"SWEEPRUN_PORT": text})


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "86401"])
@pytest.mark.parametrize("name", ["SWEEPRUN_FENCE_SECONDS", "SWEEPRUN_SAMPLE_SECONDS", "SWEEPRUN_SETTLE_SECONDS"])
def test_seconds_that_are_none_are_refused_by_name(name, text):
    with pytest.raises(EnvironError, match=name):
        Settings.read({name: text})


@pytest.mark.parametrize("name", ["SWEEPRUN_FENCE_SECONDS", "SWEEPRUN_SAMPLE_SECONDS"])
def test_looking_without_a_pause_is_refused(name):
    with pytest.raises(EnvironError, match=name):
        Settings.read({name: "0"})
