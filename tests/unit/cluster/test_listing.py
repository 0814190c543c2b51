"""Pages of metadata are read as far as a resync needs them; what is no page is an error that says where."""

from __future__ import annotations

import json

import pytest

from sweeprun_operator.cluster.fields import labels_of, uid_of
from sweeprun_operator.cluster.listing import read_page
from sweeprun_operator.cluster.versions import version

ITEM = {
    "metadata": {
        "name": "run",
        "namespace": "team",
        "uid": "u-1",
        "resourceVersion": "7",
        "labels": {"sweeprun.dev/uid": "u-0"},
        "managedFields": [{"fieldsV1": {"f:metadata": {}}}],
    }
}


def page(**fields):
    return json.dumps({"kind": "PartialObjectMetadataList", "metadata": {}, "items": [], **fields}).encode()


def test_what_a_resync_compares_is_as_in_the_whole_object():
    (found,), token = read_page(page(items=[ITEM], metadata={"continue": "next", "resourceVersion": "9"}))
    assert token == "next"
    assert found["metadata"] == {key: value for key, value in ITEM["metadata"].items() if key != "managedFields"}
    assert (uid_of(found), labels_of(found), version(found)) == (uid_of(ITEM), labels_of(ITEM), version(ITEM))


@pytest.mark.parametrize("empty", [[], None])
def test_a_page_without_objects_is_the_last(empty):
    assert read_page(page(items=empty)) == ([], None)
    assert read_page(page(items=empty, metadata={"continue": ""})) == ([], None)


def test_objects_without_labels_or_namespace_are_read():
    (found,), _ = read_page(page(items=[{"metadata": {"name": "node", "labels": None}}]))
    assert labels_of(found) == {}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "EOF"),
        (b"<html>", "expected value"),
        (b"[]", "the answer"),
        (page(items={"0": ITEM}), "items"),
        (page(items=[ITEM, 7]), r"items\.1"),
        (page(items=[{"metadata": {"labels": {"a": 7}}}]), r"items\.0\.metadata\.labels\.a"),
        (b'{"items":' + b"[" * 100_000, "recursion"),
    ],
)
def test_what_is_no_page_is_told_with_its_place(data, said):
    with pytest.raises(ValueError, match=said):
        read_page(data)
