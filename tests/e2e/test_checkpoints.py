"""What lies on the volume decides, every byte of it, and nothing starts over by accident."""

import zipfile

import pytest

from support.cluster import eventually
from support.story import example, with_arguments

KINDS = ["library", "plain"]


def flip_one_bit(checkpoint):
    """In the middle of the largest tensor: only a digest or the entry's CRC can see it. Returns the entry's name."""
    file = max(checkpoint.rglob("*.pt"), key=lambda path: path.stat().st_size) if checkpoint.is_dir() else checkpoint
    with zipfile.ZipFile(file) as archive:
        entry = max((info for info in archive.infolist() if "/data/" in info.filename), key=lambda info: info.file_size)
    with file.open("r+b") as stream:
        stream.seek(entry.header_offset + 26)
        name_length, extra_length = (int.from_bytes(stream.read(2), "little") for _ in range(2))
        position = entry.header_offset + 30 + name_length + extra_length + entry.file_size // 2
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 0x10]))
    return file.name if checkpoint.is_dir() else entry.filename


def hold(told):
    """Suspend: the attempt is drained, and the volume is ours until it goes on."""
    told.cluster.patch("SweepRun", told.name, {"spec": {"suspend": True}})
    told.wait_condition("Suspended")
    told.wait(lambda status: status["current"]["state"] == "Held", "held")


def release(told, **spec):
    told.cluster.patch("SweepRun", told.name, {"spec": {"suspend": False, **spec}})


@pytest.mark.parametrize("kind", KINDS)
def test_one_flipped_bit_is_found_and_the_checkpoint_before_is_used(kind, story, undisturbed):
    told = story(f"flipped-{kind}").apply(example(kind, f"flipped-{kind}"))
    told.wait_step(120)
    hold(told)
    newest = told.checkpoints()[-1]
    before = told.checkpoints()[-2]
    entry = flip_one_bit(newest[2])
    release(told)
    told.wait(lambda status: status["counts"].get("resumes", 0) == 1, "resumed")
    resumed = told.history()[-1]
    assert resumed["reason"] == "WalkedBack"
    assert resumed["fromStep"] == before[0]
    refused = resumed["refused"][0]
    assert entry.split("/")[-1] in refused["entry"], refused
    eventually(lambda: not newest[2].exists(), "it was moved to quarantine", timeout=60)
    quarantined = list((told.run_directory / "quarantine").iterdir())
    assert quarantined
    # the branch above the base is abandoned: interrupt again, and the next base is of this attempt
    told.wait_step(before[0] + 40)
    told.cluster.evict(told.pod("worker-0"))
    told.wait_complete()
    assert told.history()[-1]["epoch"] > resumed["epoch"]
    base = told.decision(told.history()[-1]["epoch"])["base"]
    assert (base["step"], base["epoch"]) != (newest[0], newest[1])
    assert told.digest() == undisturbed(kind).digest()


@pytest.mark.parametrize("kind", KINDS)
def test_evicted_before_the_first_checkpoint(kind, story, undisturbed):
    manifest = with_arguments(example(kind, f"early-{kind}"), "--checkpoint-every", "150")
    told = story(f"early-{kind}").apply(manifest)
    before = told.wait_attempt(0)
    told.cluster.evict(told.pod("master-0"))
    status = told.wait_complete()
    assert status["runId"] == before["runId"]
    assert status["counts"]["freshStarts"] == 0
    assert told.history()[1]["outcome"] in ("Restart", "Resume"), "the library may have saved within the grace"
    if kind == "plain":
        assert (told.history()[1]["outcome"], told.history()[1]["reason"]) == ("Restart", "NothingCommitted")
        assert status["counts"]["restarts"] == 1
    assert told.digest() == undisturbed(kind).digest()


@pytest.mark.parametrize(("policy", "outcome"), [("NewRun", "Fresh"), ("RestartRun", "Restart"), ("Fail", None)])
def test_all_checkpoints_refused(policy, outcome, story):
    name = f"refused-{policy.lower()}"
    manifest = example("library", name)
    manifest["spec"]["resume"] = manifest["spec"].get("resume", {}) | {"onNoValidCheckpoint": policy}
    told = story(name).apply(manifest)
    told.wait_step(60)
    hold(told)
    run_directory = told.run_directory
    run_id = told.status["runId"]
    for _, _, path in told.checkpoints():
        flip_one_bit(path)
    release(told)
    if policy == "Fail":
        failed = told.wait_condition("Failed")
        assert failed["reason"] == "NoValidCheckpoint"
        assert told.status["counts"]["attempts"] == 1
        return
    told.wait(lambda status: status["counts"]["attempts"] == 2, "the next attempt")
    attempt = told.history()[-1]
    assert (attempt["outcome"], attempt["reason"]) == (outcome, "AllCheckpointsRefused")
    status = told.wait_complete()
    if policy == "NewRun":
        assert status["runId"] != run_id
        assert status["previousRunIds"][0]["runId"] == run_id
        assert status["counts"]["freshStarts"] == 1
        assert (run_directory / "superseded-by.json").exists()
        assert (run_directory / "quarantine").exists(), "the old run stays, with its verdicts"
        assert "FreshStart" in told.event_reasons()
    else:
        assert status["runId"] == run_id
        assert status["counts"]["restarts"] == 1


def test_sweep_init_runs_for_a_fresh_start_and_never_on_a_resume(story):
    name = "initialised"
    manifest = example("library", name)
    del manifest["spec"]["config"]
    image = manifest["spec"]["template"]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    manifest["spec"]["init"] = {
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "init",
                        "image": image["image"],
                        "command": ["python", "/opt/sweeprun/examples/digits/sweep_init.py"],
                        "securityContext": image["securityContext"],
                    }
                ]
            }
        }
    }
    told = story(name).apply(manifest)
    told.wait_step(60)
    configuration = (told.run_directory / "train_config_overrides.yaml").read_bytes()
    told.cluster.evict(told.pod("worker-0"))
    told.wait_complete()
    assert (told.run_directory / "train_config_overrides.yaml").read_bytes() == configuration
    uid = told.run["metadata"]["uid"]
    inits = told.cluster.list("Job", selector=f"sweeprun.dev/uid={uid},sweeprun.dev/role=init")
    records = list((told.volume / ".sweeprun-inits").rglob("*.json"))
    assert len(inits) <= 1
    assert len([record for record in records if uid[:8] in str(record) or name in str(record)]) <= 1


def test_a_volume_that_came_back_empty_blocks_and_loses_nothing(story, volume_of):
    name = "vanished"
    directory = volume_of("vanishing")
    manifest = example("library", name)
    manifest["spec"]["storage"]["persistentVolumeClaim"] = {"claimName": "vanishing"}
    told = story(name, volume="vanishing").apply(manifest)
    told.wait_step(60)
    hold(told)
    saved = directory.with_name("vanishing-saved")
    saved.mkdir()
    for entry in list(directory.iterdir()):
        entry.rename(saved / entry.name)
    release(told)
    stuck = told.wait_condition("Stuck")
    assert stuck["reason"] in ("VolumeChanged", "RunDirectoryMissing")
    assert told.status["counts"]["attempts"] == 1, "nothing was started"
    for entry in list(directory.iterdir()):
        entry.rename(saved / f"{entry.name}.stray")
    for entry in list(saved.iterdir()):
        if not entry.name.endswith(".stray"):
            entry.rename(directory / entry.name)
    status = told.wait_complete()
    assert status["counts"]["resumes"] == 1
    assert told.history()[-1]["fromStep"] >= 60


def test_a_volume_of_another_user_blocks_with_both_named_and_goes_on_when_it_is_writable(story, volume_of):
    name = "foreign-user"
    directory = volume_of("foreign", owner=0)
    manifest = example("library", name)
    manifest["spec"]["storage"]["persistentVolumeClaim"] = {"claimName": "foreign"}
    told = story(name, volume="foreign").apply(manifest)
    stuck = told.wait_condition("Stuck")
    assert stuck["reason"] == "NotWritable"
    assert "uid 1000" in stuck["message"]
    assert "uid 0" in stuck["message"]
    directory.chmod(0o777)
    told.wait_complete()
