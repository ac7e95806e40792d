"""The same inputs are the same job; nothing else is part of them."""

from typing import Any

from mlops.compute import fingerprint

ENTRY: dict[str, Any] = {
    "cmd": "python -m demo stage train",
    "deps": [
        {"path": "data/dataset", "hash": "md5", "md5": "aa.dir", "size": 10, "nfiles": 2},
        {"path": "train.py", "hash": "md5", "md5": "bb", "size": 3},
    ],
    "params": {"params.yaml": {"train": {"lr": 0.1}}},
    "outs": [{"path": "models/model", "hash": "md5", "md5": "cc.dir", "size": 7, "nfiles": 2}],
}


def changed(**parts: Any) -> fingerprint.Inputs:
    """Return the inputs of an entry with other parts."""
    return fingerprint.from_entry({**ENTRY, **parts})


def test_of_entry_leaves_out_what_the_stage_makes() -> None:
    assert changed() == changed(outs=[{"path": "models/model", "md5": "another"}])
    assert changed()["outs"] == ["models/model"]


def test_digest_tells_inputs_and_image_apart() -> None:
    dep = {"path": "train.py", "hash": "md5", "md5": "dd", "size": 3}
    others = [
        changed(cmd="python -m demo stage other"),
        changed(deps=[ENTRY["deps"][0], dep]),
        changed(params={"params.yaml": {"train": {"lr": 0.2}}}),
        changed(outs=[]),
    ]
    digests = [fingerprint.digest(inputs, "") for inputs in (changed(), *others)] + [
        fingerprint.digest(changed(), "an-image")
    ]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 12 for digest in digests)


def test_digest_is_not_of_sizes_which_dvc_may_not_know() -> None:
    without = [{key: dep[key] for key in dep if key not in ("size", "nfiles")} for dep in ENTRY["deps"]]
    assert fingerprint.digest(changed(deps=without)) == fingerprint.digest(changed())


def test_differences_names_what_a_person_can_look_at() -> None:
    dep = {"path": "train.py", "hash": "md5", "md5": "dd", "size": 3}
    other = changed(cmd="other", deps=[dep], params={"params.yaml": {"train": {"lr": 0.2}, "data": 1}})
    assert fingerprint.differences(changed(), other) == [
        "cmd",
        "data/dataset",
        "train.py",
        "params.yaml:data",
        "params.yaml:train",
    ]
    assert fingerprint.differences(changed(), changed()) == []
