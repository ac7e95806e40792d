"""The hops of a chain of proof, from an alias to the bytes: what each compares, and with what.

A hop is a function that returns what it has checked. It raises BrokenError where something is not what was recorded.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from ..errors import ProjectError
from ..files import write_json
from ..records import consent
from ..registry.versions import MANIFEST, MODEL_DATA, TaggedVersion, download
from ..tracking import lineage_log, run_files
from ..tracking.git import exists, git, try_git
from ..tracking.mlflow_reader import Reader, SqliteReader
from ..tracking.run_context import DATASET
from ..tracking.run_files import LINEAGE, RUN_DIR
from . import commits
from .commits import Pinned
from .history import History
from .names import MODEL
from .objects import LostError, Store, UnreachableError

FETCH_LOG = "git log --first-parent lineage; what others published: git fetch --tags origin lineage"
REPAIR = "python -m mlops mirror status says more; MLflow is a copy of what Git and DVC have"
IGNORED = re.compile(
    r"(^|/)(__pycache__|\.DS_Store|\.env|\.(mypy|ruff|pytest)_cache)(/|$)|(\.py[cod]|\.orig|\.rej|~|\.sw.)$"
)
LFS = b"version https://git-lfs"


class BrokenError(ProjectError):
    """Something is not what was recorded."""

    def __init__(self, problem: str, expected: object, actual: object, fix: str) -> None:
        super().__init__(problem, fix)
        self.expected, self.actual = str(expected), str(actual)


class MlflowAwayError(ProjectError):
    """MLflow can't be asked now."""


@dataclass
class Chain:
    """What is verified.

    Args:
        history: Of the project.
        deep: Whether every file of the dataset is hashed.
        tagged: The registered version, if it is one.
        run: The run, if there is one.
        results: What the commit with the results of the run pins.
        pinned: What the commit pins that the run read.
        facts: What the run recorded; `of_run` reads them.
    """

    history: History
    deep: bool
    tagged: TaggedVersion | None = None
    alias: str = ""
    run: str = ""
    results: Pinned | None = None
    pinned: Pinned | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    hashed: int = 0  # bytes
    unhashed: int = 0  # files whose bytes were not read
    erased: Collection[str] = ()  # hashes that a tombstone explains
    unpushed: int = 0  # files that this clone's cache alone has

    @property
    def version(self) -> TaggedVersion:
        """Return the registered version; hops of versions alone ask for it."""
        if self.tagged is None:
            raise ValueError("this is the chain of no version")
        return self.tagged

    @property
    def inputs(self) -> Pinned:
        """Return what the commit pins that the run read; hops after that commit ask for it."""
        if self.pinned is None:
            raise ValueError("the commit that the run read is unknown")
        return self.pinned

    def need_mlflow(self) -> Reader:
        """Return what reads MLflow; raise MlflowAwayError if it can't be asked."""
        if not self.history.reader:
            raise MlflowAwayError("; ".join(self.history.notes), "see that it is up: platform.yaml:tracking_uri")
        return self.history.reader

    def need_results(self) -> Pinned:
        """Return what the commit with the results pins; raise BrokenError if there is none."""
        if not self.results:
            problem = f"no commit of this clone has the results of run {self.run}"
            raise BrokenError(problem, "a commit with reports/run.json and dvc.lock", "none", "git fetch --tags origin")
        return self.results

    def check_files(self, hashes: Iterable[str], contents: bool = True) -> int:
        """Check that the remote has files, and with `contents` that each copy has its bytes; return how many.

        Raises:
            LostError: The remote lacks one. What is not registered may be in the cache alone.
            DamagedError: A copy has other bytes.
            UnreachableError: The remote can't be asked; copies in the cache are checked before that.
        """
        wanted = sorted(set(hashes))
        objects = self.history.objects
        local = objects.cache.sizes(wanted)
        away: UnreachableError | None = None
        try:
            distant = objects.remote.sizes(wanted)
        except UnreachableError as error:
            away, distant = error, {}
        copies: list[tuple[Store, str]] = [(objects.cache, md5) for md5 in local]
        if objects.remote.is_near:  # a bucket's copy is read where the cache has none
            copies += [(objects.remote, md5) for md5 in distant]
        else:
            copies += [(objects.remote, md5) for md5 in distant if md5 not in local]
        if contents:
            self._hash(copies)
            self.hashed += sum((local if store is objects.cache else distant)[md5] for store, md5 in copies)
        else:
            self.unhashed += len(wanted)
        if away:
            raise away
        # One that no tombstone explains comes first: it is what the message names.
        missing = sorted({*wanted} - distant.keys(), key=lambda md5: (md5 in self.erased, md5))
        in_cache = sum(md5 in local for md5 in missing)
        if self.tagged is None and in_cache == len(missing):  # what is not registered need not be pushed
            self.unpushed += in_cache
        elif missing:
            problem = f"{len(missing)} of {len(wanted)} files are not in the remote, the first is {missing[0]}"
            is_here = in_cache == len(missing)
            fix = objects.push_command if is_here else f"in a clone that has them: {objects.push_command}"
            raise LostError(f"{problem}; this clone's cache has {in_cache} of them", fix)
        return len(wanted)

    def _hash(self, copies: list[tuple[Store, str]]) -> None:
        def md5_of(copy: tuple[Store, str]) -> str:
            store, md5 = copy
            digest = hashlib.md5(usedforsecurity=False)
            for chunk in store.chunks(md5):
                digest.update(chunk)
            return digest.hexdigest()

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for (store, md5), actual in zip(copies, pool.map(md5_of, copies), strict=True):
                if actual != md5.removesuffix(".dir"):
                    pool.shutdown(cancel_futures=True)
                    raise self.history.objects.damaged(store, md5, actual)


def _same(what: str, expected: object, actual: object, fix: str) -> None:
    if expected != actual:
        raise BrokenError(f"{what} is another", expected, actual, fix)


def of_alias(chain: Chain) -> str:
    """Compare MLflow's aliases with the log's."""
    chain.need_mlflow()
    history, number = chain.history, chain.version.number
    names = {alias for held in (history.aliases, history.logged_aliases) for alias, n in held.items() if n == number}
    for alias in sorted({*names, *filter(None, [chain.alias])}):
        in_log, in_mlflow = history.logged_aliases.get(alias, "none"), history.aliases.get(alias, "none")
        fix = f"who moved it? python -m mlops registry log; to record it: registry promote {in_mlflow} --to {alias}"
        _same(f"the version that is {alias} in MLflow", in_log, in_mlflow, fix)
    return f"{', '.join(sorted(names)) or 'no alias'}: MLflow and the log agree"


def of_registry(chain: Chain) -> str:
    """Compare the version's tags in MLflow with the run's record and with Git."""
    chain.need_mlflow()
    version, results = chain.version, chain.need_results()
    stored = chain.history.mlflow_versions.get(version.number)
    if not stored:
        raise BrokenError(
            f"MLflow has no version {version.number}", version.tag, "none", "python -m mlops mirror repair"
        )
    facts = commits.facts(results, chain.history.objects)
    recorded = {name: facts[name] for name in ("dataset_md5", "manifest_sha256", "consent_sha256", "data_version")}
    if stored.tags.get("run") == facts["run"]:
        recorded |= {name: facts[name] for name in ("run", "data_git_commit_id", "consent_excluded")}
    for name, value in recorded.items():
        if name in stored.tags or name in ("dataset_md5", "manifest_sha256"):
            _same(f"the tag {name} of the version in MLflow", str(value), stored.tags.get(name, "none"), REPAIR)
    return f"{len(recorded)} tags in MLflow are those of the run and of Git"


def of_tag(chain: Chain) -> str:
    """Compare the version's Git tag with the log, and both with MLflow; the log says where the chain goes on."""
    version, history = chain.version, chain.history
    logged = logged_commits(version.number)
    if not logged:
        raise BrokenError(f"the log has no entry of version {version.number}", "an entry", "none", FETCH_LOG)
    if version.commit not in logged:
        problem = f"the tag {version.tag} is on another commit than the log says"
        raise BrokenError(problem, logged[-1], version.commit, f"git tag -d {version.tag} && git fetch --tags origin")
    stored = history.mlflow_versions.get(version.number)
    if stored and stored.tags.get("result_commit", logged[0]) not in logged:
        problem = f"the log and the tag {version.tag} name another commit than MLflow: the history was rewritten"
        raise BrokenError(problem, stored.tags["result_commit"], version.commit, FETCH_LOG)
    published = git("for-each-ref", "--format=%(refname)", lineage_log.ANY_PUBLISHED).split()
    is_in = [try_git("merge-base", "--is-ancestor", version.commit, ref) is not None for ref in published]
    if published and not any(is_in) and not lineage_log.unpublished():
        raise BrokenError("the published log lacks the commit of the tag", version.commit, "none", FETCH_LOG)
    return f"{version.tag} is on the commit of the log's entry, {version.commit[:12]}"


def logged_commits(number: int) -> list[str]:
    """Return the commits of a version's registrations in the log, the newest first."""
    return [entry.commit for entry in lineage_log.log() if entry.version == number]


def of_results(chain: Chain) -> str:
    """Hash the commit with the results, its trees and files, to the ids that Git gives them."""
    results = chain.need_results()
    return f"{_check_commit(results.commit)} objects of commit {results.commit[:12]} have their ids"


def _check_commit(commit: str) -> int:
    """Hash a commit with all that the project has in it; return how many objects; raise BrokenError for one changed."""
    if not exists(commit):
        raise BrokenError(f"this clone lacks commit {commit}", commit, "none", "git fetch --tags origin; git fsck")
    tree = [line.split()[2] for line in git("ls-tree", "-r", "-t", commit, "./").splitlines() if " commit " not in line]
    ids = list(dict.fromkeys([commit, git("rev-parse", f"{commit}^{{tree}}"), *tree]))
    kinds, algorithm = {b"commit", b"tree", b"blob"}, hashlib.sha1 if len(commit) == 40 else hashlib.sha256
    for name, kind, content in commits.objects(ids):
        if kind not in kinds:
            raise BrokenError(f"Git's object {name} is missing", name, "none", "git fsck; git fetch --refetch origin")
        actual = algorithm(kind + b" %d\0" % len(content) + content).hexdigest()
        _same(f"the content of Git's object {name}", name, actual, "git replace -l; git fsck; or a fresh clone")
    return len(ids)


def of_weights(chain: Chain) -> str:
    """Hash the model's files to what `dvc.lock` pins, and compare them with the copy in MLflow."""
    results, history = chain.need_results(), chain.history
    md5 = results.out(MODEL)
    if not md5:
        raise BrokenError(f"dvc.lock of commit {results.commit[:12]} pins no {MODEL}", MODEL, "none", "git fsck")
    files = history.objects.listing(md5)
    count = chain.check_files([md5, *files.values()])
    checked = f"{count} files of {MODEL} have their hashes"
    stored = history.mlflow_versions.get(chain.tagged.number) if chain.tagged and history.reader else None
    if not stored:
        return checked
    sums = {path: hashlib.sha256(history.objects.read(each)).hexdigest() for path, each in files.items()}
    if (sha256 := stored.tags.get("model_sha256")) not in sums.values():
        raise BrokenError(
            "the tag model_sha256 in MLflow is of other weights", " or ".join(sums.values()), sha256, REPAIR
        )
    if (copy := _copy_in_mlflow(chain)) is None:
        return f"{checked}; MLflow's copy was not read: --deep"
    for path, expected in sums.items():
        file = copy / MODEL_DATA / path
        actual = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "none"
        _same(
            f"{path} in MLflow's copy of the model", expected, actual, "it is not what was registered: do not load it"
        )
    return f"{checked}; MLflow's copy has the same bytes"


def _copy_in_mlflow(chain: Chain) -> Path | None:
    """Return the folder of the version's files in MLflow; None where they are on a server, and only `deep` fetches."""
    reader, name = chain.history.reader, chain.history.model
    if isinstance(reader, SqliteReader):
        address = urlparse(reader.location(name, chain.version.number))
        if address.scheme in ("", "file"):
            return Path(unquote(address.path))
    if not chain.deep:
        return None
    return download(f"models:/{name}/{chain.version.number}", Path(tempfile.mkdtemp()))


def of_run(chain: Chain) -> str:
    """Read the run's record from DVC, and compare MLflow's params with it."""
    results, history = chain.need_results(), chain.history
    folder = history.objects.listing(results.out(RUN_DIR.as_posix()))
    chain.check_files([results.out(RUN_DIR.as_posix()), *folder.values()])
    facts = chain.facts = commits.facts(results, history.objects)
    _same("the run of reports/train", results.report("run").get("run"), facts["run"], "git fsck")
    checked = f"{len(folder)} files of run {facts['run']} have their hashes"
    if history.offline:
        return checked
    reader = chain.need_mlflow()
    stored = history.mlflow_runs.get(facts["run"])
    if not stored:
        raise BrokenError(f"MLflow has no run {facts['run']}", facts["run"], "none", "python -m mlops mirror repair")
    with tempfile.TemporaryDirectory() as scratch:
        write_json(Path(scratch, LINEAGE), facts)
        params_yaml = commits.run_file(results, history.objects, "params.yaml")
        Path(scratch, RUN_DIR, "params.yaml").write_bytes(params_yaml)
        recorded = run_files.params(Path(scratch))
    in_mlflow = reader.params(stored.id)
    for name, value in recorded.items():
        # Of versions of the template that recorded less, or under other names, MLflow lacks some.
        if name in in_mlflow or name in ("dataset_md5", "manifest_sha256"):
            _same(f"the param {name} of the run in MLflow", value, in_mlflow.get(name, "none"), REPAIR)
    return f"{checked}; {len(recorded.keys() & in_mlflow.keys())} params in MLflow are the same"


def of_inputs(chain: Chain) -> str:
    """Check the commit that the run read: its objects, its place in the log, its params and its code."""
    commit = chain.facts.get("data_git_commit_id") or (chain.pinned.commit if chain.pinned else "")
    logged = chain.history.inputs.get(chain.run)
    if chain.run and logged:
        _same(f"the commit that run {chain.run} read, in the log", commit, logged, "git log --first-parent lineage")
    chain.pinned = chain.history.pinned_at(commit) if exists(commit) else None
    count = _check_commit(commit)
    if chain.run and not logged:
        raise BrokenError(f"the log has no entry of the training of run {chain.run}", commit, "none", FETCH_LOG)
    inputs = chain.inputs
    if not chain.results:
        return f"{count} objects of commit {commit[:12]} have their ids"
    lock = chain.results.lock
    before = _upstream(lock, MODEL)
    for name in before[1:]:  # of the training itself, the commit may have an earlier entry
        actual = _entry(inputs.lock.get(name, {}))
        _same(f"dvc.lock's entry of {name}", _entry(lock[name]), actual, "git fsck; dvc repro --dry")
    stages = [lock[name] for name in before]
    for stage in stages:
        for section, values in (stage.get("params", {}).get("params.yaml") or {}).items():
            now = _param(inputs.params, section)
            fix = f"git diff {commit[:12]} {chain.results.commit[:12]} -- params.yaml dvc.lock"
            _same(f"params.yaml:{section} of commit {commit[:12]}", _plain(values), _plain(now), fix)
    code = _check_code(commit, stages)
    return f"{count} objects of commit {commit[:12]}; {code} of its deps, and its params, are those of dvc.lock"


def _upstream(lock: dict[str, Any], path: str) -> list[str]:
    """Return the stage of `dvc.lock` that makes an output, then those that it was made from."""
    made_by = {out["path"]: name for name, stage in lock.items() for out in stage.get("outs", ())}
    names = [made_by[path]] if path in made_by else []
    for name in names:  # grows
        read = [f"{dep['path']}/" for dep in lock[name].get("deps", ())]  # an output, or what is in it
        deps = [stage for out, stage in made_by.items() if any(path.startswith(f"{out}/") for path in read)]
        names += [stage for stage in dict.fromkeys(deps) if stage not in names]
    return names


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _entry(stage: dict[str, Any]) -> str:
    # `cache: false` outs, such as reports, differ each time a stage runs, with the same result.
    return _plain({"deps": stage.get("deps"), "outs": [out for out in stage.get("outs", ()) if out.get("nfiles")]})


def _param(params: dict[str, Any], key: str) -> Any:
    """Return a value of `params.yaml` as DVC names it: train, or train.seed."""
    value: Any = params
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _check_code(commit: str, stages: Iterable[dict[str, Any]]) -> int:
    """Compare the deps in Git with the hashes that DVC took of them; return how many there are."""
    deps = {dep["path"]: dep["md5"] for stage in stages for dep in stage.get("deps", ()) if dep.get("md5")}
    lines = git("ls-tree", "-r", "-z", commit, "--", *deps).split("\0")
    files = [line.partition("\t")[2] for line in lines if line]
    wanted = [(commit, path) for path in files if not IGNORED.search(path)]
    contents = {path: content for (_, path), content in commits.blobs(wanted).items()}
    checked = 0
    for path, md5 in deps.items():
        below = {name: content for name, content in contents.items() if name == path or name.startswith(f"{path}/")}
        if not below or any(content.startswith(LFS) for content in below.values()):
            continue  # DVC's, or a filter's of Git
        hashes = {name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in below.items()}
        actual = hashes.get(path) or _folder_hash(path, hashes)
        _same(f"the content of {path} at commit {commit[:12]}", md5, actual, f"git log --stat -- {path}")
        checked += 1
    return checked


def _folder_hash(folder: str, hashes: dict[str, str]) -> str:
    """Return DVC's hash of a folder: that of the list of its files, as JSON.

    They are in the order of their paths as text. Source: dvc_data.hashfile.tree.Tree.as_bytes
    """
    entries = [{"md5": md5, "relpath": name.removeprefix(f"{folder}/")} for name, md5 in sorted(hashes.items())]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _pinned(chain: Chain, path: str) -> str:
    """Return DVC's hash of an output at the commit that the run read."""
    if md5 := chain.inputs.out(path):
        return md5
    raise BrokenError(f"dvc.lock of commit {chain.inputs.commit[:12]} pins no {path}", path, "none", "git fsck")


def of_dataset(chain: Chain) -> str:
    """Check that every file of the dataset is there, and with `deep` its bytes."""
    md5 = _pinned(chain, DATASET)
    if chain.facts:
        fix = f"git show {chain.inputs.commit[:12]}:./dvc.lock"
        _same("the dataset of the run's commit", chain.facts["dataset_md5"], md5, fix)
    files = chain.history.objects.listing(md5)
    chain.check_files([md5])
    count = chain.check_files(files.values(), contents=chain.deep)
    return f"{count} files of {DATASET} {'have their hashes' if chain.deep else 'are there'}"


def of_manifest(chain: Chain) -> str:
    """Hash the data manifest and its rows, and compare its paths with the dataset's files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..records import manifest

    md5, objects = _pinned(chain, MANIFEST.as_posix()), chain.history.objects
    chain.check_files([md5])
    digest, paths, rows = manifest.Digest(), set[str](), 0
    expected = chain.facts.get("manifest_sha256") or next(iter(chain.inputs.report("manifest").get("sha256", ())), None)
    try:
        with objects.file(md5) as path, pq.ParquetFile(path) as file:
            for batch in file.iter_batches(manifest.ROW_GROUP):
                digest.update(batch)
                paths.update(batch.column("path").unique().to_pylist())
                rows += len(batch)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise BrokenError(
            f"{MANIFEST} is no manifest: {error}", expected, "unreadable", "dvc repro manifest"
        ) from error
    fix = f"git show {chain.inputs.commit[:12]}:./reports/manifest.json"
    _same("the digest of the manifest's rows", expected, digest.hexdigest(), fix)
    files = set(objects.listing(chain.inputs.out(DATASET)))
    if lost := sorted(paths - files):
        raise BrokenError("the manifest lists files that the dataset lacks", lost[0], "none", "dvc repro manifest")
    return f"{rows} rows have the recorded digest, in {len(paths)} files of the dataset"


def of_source(chain: Chain) -> str:
    """Check that the data that the dataset was made from are kept, or named where they are from."""
    stages = (s for s in chain.inputs.lock.values() if any(out["path"] == DATASET for out in s.get("outs", ())))
    deps = {dep["path"]: dep.get("md5", "") for stage in stages for dep in stage.get("deps", ())}
    elsewhere = {str(item.get("path")) for item in chain.facts.get("inputs_elsewhere", ())}
    tracked = {path: md5 for path, md5 in deps.items() if md5 and f"{path}.dvc" in _files_at(chain.inputs.commit)}
    for path in sorted(tracked.keys() - elsewhere):
        listing = chain.history.objects.listing(tracked[path])
        chain.check_files([*listing.values()], contents=chain.deep)
    source = (chain.inputs.params.get("data") or {}).get("source", "unknown")
    named = [*sorted(tracked), *sorted(elsewhere)]
    return f"source {source}{': ' + ', '.join(named) if named else ', whose code is among the deps'}"


def _files_at(commit: str) -> set[str]:
    return set(git("ls-tree", "-r", "-z", "--name-only", commit).split("\0"))


def of_consent(chain: Chain) -> str:
    """Compare the registry of consent with the recorded digest, and see that it only grew since."""
    inputs = chain.inputs
    prepared = inputs.report("prepare").get("consent_sha256") or ["unknown"]
    expected = str(chain.facts.get("consent_sha256") or prepared[0])
    if expected == consent.NOT_REQUIRED:
        return "consent was not required"
    before = _registry_at(inputs.commit, chain)
    actual = hashlib.sha256(before).hexdigest()
    fix = f"git log -p -- {consent.PATH.as_posix()}"
    _same(f"{consent.PATH} of commit {inputs.commit[:12]}", expected, actual, fix)
    path = consent.PATH
    today = path.read_bytes() if path.is_file() else _registry_at("HEAD", chain)
    lines: Iterator[str] = iter(_lines(today))
    for number, line in enumerate(_lines(before), 1):  # in the same order, others between them
        if line not in lines:
            problem = f"line {number} of {path} as it was then is no more in today's: the history was rewritten"
            raise BrokenError(problem, f"line {number} of {expected[:12]}", "changed or removed", fix)
    return f"the registry has the recorded digest; all its {number} lines are in today's"


def _lines(content: bytes) -> list[str]:
    return [line.rstrip("\r") for line in content.decode("utf-8-sig", "surrogateescape").split("\n") if line.strip()]


def _registry_at(commit: str, chain: Chain) -> bytes:
    path = consent.PATH.as_posix()
    contents = commits.blobs([(commit, path), (commit, f"{path}.dvc")])
    if (commit, path) in contents:
        return contents[commit, path]
    match = re.search(rb"md5: ([0-9a-f]{32})\b", contents.get((commit, f"{path}.dvc"), b""))
    if not match:
        raise BrokenError(f"commit {commit[:12]} has no {path}", path, "none", "git fsck")
    return chain.history.objects.read(match[1].decode())


Hop = Callable[[Chain], str]
HOPS: dict[str, Hop] = {
    "alias": of_alias,
    "tag and log": of_tag,
    "MLflow's version": of_registry,
    "results": of_results,
    "weights": of_weights,
    "run": of_run,
    "commit": of_inputs,
    "dataset": of_dataset,
    "manifest": of_manifest,
    "source": of_source,
    "consent": of_consent,
}
OF_VERSION = ("alias", "tag and log", "MLflow's version")
OF_RESULTS = ("results", "weights", "run")
ONLINE = ("alias", "MLflow's version")
