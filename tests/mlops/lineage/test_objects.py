"""The files that DVC keeps, read without DVC: where its configuration has them, with the bytes of their hash."""

import hashlib
import json
from pathlib import Path

import pytest
from mlops.lineage.hops import _folder_hash, _param, _upstream
from mlops.lineage.objects import Bucket, DamagedError, Folder, LostError, Objects, UnreachableError, Unread


def configure(root: Path, text: str, name: str = "config") -> None:
    (root / ".dvc").mkdir(exist_ok=True)
    (root / ".dvc" / name).write_text(text, encoding="utf-8")


def put(store: Path, content: bytes, suffix: str = "") -> str:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
    path = store / "files/md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose remote is the folder `store` beside it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "project").mkdir()
    (tmp_path / "store").mkdir()
    configure(tmp_path / "project", "[core]\n    remote = s\n['remote \"s\"']\n    url = ../../store\n")
    return tmp_path / "project"


def test_read_takes_the_remote_where_the_cache_lacks_it(root: Path) -> None:
    md5 = put(root.parent / "store", b"x")
    assert Objects(root).read(md5) == b"x"


def test_read_of_what_nobody_has_is_lost(root: Path) -> None:
    with pytest.raises(LostError, match="neither in DVC's cache nor in its remote"):
        Objects(root).read("0" * 32)


def test_read_of_other_bytes_is_damaged(root: Path) -> None:
    md5 = put(root / ".dvc/cache", b"x")
    (root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).write_bytes(b"y")
    with pytest.raises(DamagedError, match=f"not {md5}"):
        Objects(root).read(md5)


def test_read_without_the_remote_is_unreachable(root: Path) -> None:
    (root.parent / "store").rmdir()
    with pytest.raises(UnreachableError, match="is not there"):
        Objects(root).read("0" * 32)


def test_listing_names_the_files_of_a_folder(root: Path) -> None:
    entries = [{"md5": "a" * 32, "relpath": "train/0.parquet"}]
    md5 = put(root.parent / "store", json.dumps(entries).encode(), ".dir")
    assert Objects(root).listing(md5) == {"train/0.parquet": "a" * 32}


def test_config_of_this_clone_goes_first(root: Path, tmp_path: Path) -> None:
    other, cache = tmp_path / "other", tmp_path / "shared"
    text = f"['remote \"s\"']\n    url = {other.as_posix()}\n[cache]\n    dir = {cache.as_posix()}\n"
    configure(root, text, "config.local")
    objects = Objects(root)
    assert (objects.remote, objects.cache) == (Folder(other, "remote"), Folder(cache, "cache"))


def test_remote_below_another_has_its_options(root: Path) -> None:
    base = "['remote \"base\"']\nurl = s3://b/p\nregion = r\n"
    configure(root, f"[core]\nremote = s\n['remote \"s\"']\nurl = remote://base/sub\n{base}")
    remote = Objects(root).remote
    assert isinstance(remote, Bucket)
    assert (remote.location("ab" + "0" * 30), remote.options["region"]) == (
        f"s3://b/p/sub/files/md5/ab/{'0' * 30}",
        "r",
    )


@pytest.mark.parametrize("url", ["gs://bucket/data", ""], ids=["other kind", "none"])
def test_remote_of_another_kind_is_unreachable(root: Path, url: str) -> None:
    configure(root, f"[core]\nremote = s\n['remote \"s\"']\nurl = {url}\n" if url else "")
    remote = Objects(root).remote
    assert isinstance(remote, Unread)
    with pytest.raises(UnreachableError):
        remote.sizes(["0" * 32])


def test_folder_hash_is_that_of_dvc() -> None:
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.meta import Meta
    from dvc_data.hashfile.tree import Tree

    tree, hashes = Tree(), {}  # type: ignore[no-untyped-call]
    for number, name in enumerate(("a/b.py", "a-b.py", "a.py", "ä.py")):
        hashes[f"code/{name}"] = f"{number:032}"
        tree.add(tuple(name.split("/")), Meta(), HashInfo("md5", f"{number:032}"))
    tree.digest()
    assert tree.hash_info and _folder_hash("code", hashes) == tree.hash_info.value


def test_stages_upstream_of_the_training_are_those_it_read() -> None:
    def stage(deps: list[str], outs: list[str]) -> dict[str, list[dict[str, str]]]:
        return {"deps": [{"path": path} for path in deps], "outs": [{"path": path} for path in outs]}

    lock = {
        "fetch": stage(["raw.txt"], ["data/raw"]),
        "prepare": stage(["data/raw/images"], ["data/dataset"]),
        "figures": stage(["data/dataset"], ["figures"]),
        "train": stage(["data/dataset"], ["models/model"]),
        "register": stage(["models/model"], []),
    }
    assert sorted(_upstream(lock, "models/model")) == ["fetch", "prepare", "train"]


def test_param_is_named_as_dvc_names_it() -> None:
    params = {"train": {"seed": 3}}
    values = [_param(params, key) for key in ("train", "train.seed", "train.seed.x", "other")]
    assert values == [{"seed": 3}, 3, None, None]
