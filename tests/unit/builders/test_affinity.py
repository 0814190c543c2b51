"""The wish to avoid nodes stands beside what the template wants, in every pod that we make."""

from __future__ import annotations

import copy

import pytest

from support.manifests import make_run
from support.observations import NOW
from sweeprun_operator.api.status import AvoidedNode
from sweeprun_operator.builders.affinity import avoiding

ZONE = {"key": "zone", "operator": "In", "values": ["a"]}
GIVEN = {
    "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []},
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [ZONE]}]},
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {"matchExpressions": [ZONE]}}],
    },
}


def run(*nodes: str):
    made = make_run()
    items = [AvoidedNode(node=node, losses=2, reason="attempt 0: Taint", until=NOW) for node in nodes]
    return made.model_copy(update={"status": made.status.model_copy(update={"avoided_nodes": items})})


def test_the_templates_own_wishes_stay():
    before = copy.deepcopy(GIVEN)
    affinity = avoiding(run("bad"), GIVEN, "affinity")["affinity"]
    assert before == GIVEN, "the template is not changed"
    assert affinity["podAntiAffinity"] == GIVEN["podAntiAffinity"]
    ours, theirs = affinity["nodeAffinity"], GIVEN["nodeAffinity"]
    required, preferred = list(theirs)
    assert ours[required] == theirs[required]
    assert ours[preferred][:1] == theirs[preferred]
    assert len(ours[preferred]) == 2


def test_every_node_has_a_requirement_of_its_own_since_a_field_takes_one_value():
    (term,) = avoiding(run("a", "b"), None, "affinity")["affinity"]["nodeAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    assert [wish["values"] for wish in term["preference"]["matchFields"]] == [["a"], ["b"]]
    assert 1 <= term["weight"] <= 100


def test_without_a_node_to_avoid_nothing_is_added():
    assert avoiding(run(), None, "affinity") == {}
    assert avoiding(run(), GIVEN, "affinity") == {"affinity": GIVEN}


@pytest.mark.parametrize(
    "given",
    [
        [],
        "none",
        {"nodeAffinity": []},
        {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": {}}},
    ],
)
def test_a_shape_that_is_none_is_refused_with_its_place(given):
    with pytest.raises(ValueError, match="affinity"):
        avoiding(run("bad"), given, "affinity")
