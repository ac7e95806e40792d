"""Which version has which alias: in MLflow, and in the log, which also says who gave it, when and why.

    git log --first-parent --grep "^move: " --grep "^refusal: " lineage

The log consists of entries of the Git branch `lineage`. It is the authority: `mirror repair` gives a wiped MLflow its
aliases back. A refusal is an entry of its own, which moves nothing.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import home, load_platform
from ..errors import ProjectError
from ..tracking import lineage_log, mlflow_client, mlflow_reader
from ..tracking.git import git
from ..tracking.mlflow_reader import StoredVersion
from ..tracking.sync_status import REPAIR, STATUS
from .versions import REGISTERED, tagged_versions

CHAMPION, CHALLENGER = "champion", "challenger"
ALIASES = (CHALLENGER, CHAMPION)
MOVE, REFUSAL = "move", "refusal"  # kinds of entries; tags in MLflow begin so: copies of the log's entries, for people
REFUSE = "refuse"  # the action of a refusal
VERB = "python -m mlops registry"
FETCH_LOG = "git fetch origin lineage:lineage"
PUSH_LOG = "python -m mlops lineage push"
FETCH_TAGS = f"git fetch --tags origin && {FETCH_LOG}"
SYNC_LOG = f"moved in another clone: there {PUSH_LOG}, here {FETCH_LOG}; moved by hand: {VERB} promote records it"


@dataclass(frozen=True)
class AliasChange:
    """An entry of the log: an alias went to a version, or was refused to it."""

    model: str
    action: str  # promote, rollback, refuse
    alias: str
    before: int | None  # the version that had it
    version: int  # the version that got it, or did not
    who: str  # as Git knows them: name <address>
    aws: str  # ARN of the AWS caller; `none` without credentials; `unknown (…)` when AWS could not be asked
    when: str  # UTC, 2026-01-31T09:00:00Z
    why: str
    metrics: dict[str, Any]  # the version's own, and those of the comparison that decided

    @property
    def id(self) -> str:
        """Return its name, also in MLflow's tag, where a colon is not safe."""
        return f"{self.when.replace(':', '')}-{self.alias}"

    @property
    def kind(self) -> str:
        """Return which kind of entry it is."""
        return REFUSAL if self.action == REFUSE else MOVE

    @property
    def tag(self) -> str:
        """Return the name of its copy in MLflow."""
        return f"{self.kind}.{self.id}"

    def entry(self) -> str:
        """Return the log's entry: a title, then each field as JSON."""
        # JSON stays on its line, whatever a person typed: a line break can't forge another field.
        fields = {name: json.dumps(value, ensure_ascii=False) for name, value in dataclasses.asdict(self).items()}
        lines = "".join(f"{name}: {value}\n" for name, value in {self.kind: self.id, **fields}.items())
        text = f"{self.action} {self.model} {self.alias} to version {self.version}\n\n{lines}"
        return text.encode(errors="replace").decode()

    @classmethod
    def parse(cls, entry: str, commit: str) -> "AliasChange":
        """Read an entry of the log; raise ProjectError when a field is missing or damaged."""
        fields = dict(line.split(": ", 1) for line in entry.split("\n") if ": " in line)
        try:
            return cls(**{field.name: json.loads(fields[field.name]) for field in dataclasses.fields(cls)})
        except (KeyError, ValueError) as error:
            problem = f"entry {commit} of the branch {lineage_log.BRANCH} is no whole entry of an alias: {error!r}"
            raise ProjectError(
                problem, f"see it: git show {commit}; if a later version of the template wrote it: make update"
            ) from error


def own_log() -> str:
    """Return the ref of the log that counts here: this clone's own; before its first entry, that of a Git remote."""
    refs = lineage_log.log_refs()
    return lineage_log.REF if lineage_log.REF in refs else next(iter(refs), lineage_log.REF)


def update_log() -> str:
    """Return the command that brings the entries of a Git remote's log into this clone's own."""
    refs = [ref for ref in lineage_log.log_refs() if ref != lineage_log.REF]
    return PUSH_LOG if any(map(lineage_log.is_behind_remote, refs)) else FETCH_LOG  # it has entries of its own


def alias_changes(log_ref: str = "", kinds: Iterable[str] = (MOVE,)) -> list[AliasChange]:
    """Return the changes of the project's model in a log, the oldest first; raise if it is cut off, or damaged.

    Args:
        log_ref: The log; by default `own_log`.
        kinds: Refusals are among them only if it has them.
    """
    lineage_log.check_not_shallow()
    log_ref = log_ref or own_log()
    if log_ref not in git("for-each-ref", "--format=%(refname)", log_ref, where=home()).split():
        return []
    plain = ("--first-parent", "--reverse", "--no-show-signature", "--encoding=UTF-8", "-z", "--format=%H%n%B")
    output = git("log", *plain, "--basic-regexp", *(f"--grep=^{kind}: " for kind in kinds), log_ref, where=home())
    entries = [text.partition("\n") for text in output.split("\0") if text]
    changes = {text: AliasChange.parse(text, commit[:10]) for commit, _, text in entries}  # joined logs may repeat one
    model = load_platform().project  # one repository may hold several projects
    return [change for change in changes.values() if change.model == model]


def alias_holders(log: Sequence[AliasChange]) -> dict[str, list[int]]:
    """Return the versions of each alias after the changes of a log: the last has it, `rollback` goes back by one."""
    challengers: list[int] = []
    for change in log:
        if change.alias == CHALLENGER:
            challengers = [change.version]
        elif challengers == [change.version]:  # it has won
            challengers = []
    return {CHALLENGER: challengers, CHAMPION: [change.version for change in champions(log)]}


def champions(log: Iterable[AliasChange]) -> list[AliasChange]:
    """Return the changes that made each champion which no `rollback` took back; the last one is in use."""
    row: list[AliasChange] = []
    for change in log:
        if change.alias != CHAMPION:
            continue
        if change.action == "rollback":
            del row[-1:]
        if not row or row[-1].version != change.version:
            row.append(change)
    return row


@dataclass(frozen=True)
class Registry:
    """What MLflow and the log of this clone know of the project's model."""

    name: str
    versions: dict[int, StoredVersion]  # by number, in order
    aliases: dict[str, int]  # MLflow's
    log: list[AliasChange]

    def holder(self, alias: str) -> int | None:
        """Return the version that has an alias, as the log says."""
        return next(reversed(alias_holders(self.log)[alias]), None)

    def find(self, text: str) -> StoredVersion:
        """Return the version of a number or an alias; raise ProjectError where there is none."""
        number = int(text) if text.isdecimal() else self.aliases.get(text, 0)
        if number not in self.versions:
            known = ", ".join([*map(str, list(self.versions)[-10:]), *sorted(self.aliases)]) or "none"
            is_lost = self.holder(text) if text in ALIASES else number in tagged_versions()
            fix = STATUS if is_lost else f"take one of these: {VERB} list"
            raise ProjectError(f"{self.name} has no version {text} in MLflow (it has {known})", fix)
        return self.versions[number]

    def check_agrees(self, change: AliasChange | None = None) -> None:
        """Check that MLflow and the log agree: else a version would be compared with the wrong champion, or with none.

        Given a change, only what matters to it is checked; an interrupted command may have made it in MLflow already,
        or it takes back what was done there by hand.
        """
        for alias in (CHAMPION,) if change and change.alias == CHAMPION else ALIASES:
            in_mlflow, in_log = self.aliases.get(alias), self.holder(alias)
            if in_mlflow == (in_log if in_log in self.versions else None):  # MLflow takes a version's aliases with it
                continue
            if not change or change.alias != alias or change.version not in (in_mlflow, self.restorable(alias)):
                problem = f"{alias} is {in_mlflow or 'none'} in MLflow, and {in_log or 'none'} in the log of this clone"
                raise ProjectError(problem, self.fix_of(alias))
        if CHAMPION not in self.aliases and lineage_log.is_behind_remote(own_log()):
            problem = "MLflow has no champion, and the log of a Git remote has entries that this clone's lacks"
            raise ProjectError(f"{problem}: nobody can tell who is champion", update_log())

    def unlogged(self, alias: str) -> list[str]:
        """Return the copies in MLflow of moves of an alias to its version there that the log lacks, the newest last."""
        version, logged = self.versions.get(self.aliases.get(alias, 0)), {change.tag for change in self.log}
        tags = version.tags if version else {}
        names = sorted(tag for tag in tags if tag.startswith(f"{MOVE}.") and tag.endswith(f"-{alias}"))
        return [tags[name] for name in names if name not in logged]

    def restorable(self, alias: str) -> int | None:
        """Return the version that the log gives an alias, when nobody but a person in MLflow has moved it since."""
        number = self.holder(alias)
        is_behind = self.unlogged(alias) or lineage_log.is_behind_remote(own_log())
        return number if number in self.versions and not is_behind else None

    def fix_of(self, alias: str) -> str:
        """Return what to do where MLflow and the log disagree about who has an alias."""
        if lineage_log.is_behind_remote(own_log()):
            return update_log()
        if alias not in self.aliases:
            return REPAIR
        record = f"{VERB} promote {self.aliases[alias]} --to {alias} --why '…'"
        if copies := self.unlogged(alias):  # what moved it wrote a copy of its entry
            who = re.search(r'^who: "(.*)"$', copies[-1], re.MULTILINE)
            origin = f"{who[1] if who else 'somebody'} moved it: in that clone {PUSH_LOG}, here {FETCH_LOG}"
            return f"{origin}; if it was interrupted, the same command again: {record}"
        undo = f"; to take it back: {VERB} promote {number} --to {alias}" if (number := self.restorable(alias)) else ""
        return f"it was moved by hand; to record that: {record}{undo}"


def read(may_be_empty: bool = False) -> Registry:
    """Read what MLflow and the log know; raise ProjectError if one can't be read, or (unless that may be) is empty."""
    name, log = load_platform().project, alias_changes()
    with mlflow_client.translate_errors(mlflow_client.RETRY):
        reader = mlflow_reader.connect()
        models = reader.aliases(name)
        versions = reader.versions(name) if models else []
    if not models and not may_be_empty:
        problem = f"MLflow at {mlflow_client.tracking_uri()} has no registered model {name}"
        if numbers := {entry.version for entry in lineage_log.log() if entry.version is not None} | {
            *tagged_versions()
        }:
            problem += f", and Git knows its versions: {', '.join(map(str, sorted(numbers)))}"
            raise ProjectError(problem, f"{REPAIR}; or platform.yaml:tracking_uri: the server that has them")
        if REGISTERED.exists():
            problem += f", but {REGISTERED.as_posix()} names a version of it, whose tag this clone lacks"
            fix = f"{FETCH_TAGS} && {REPAIR}; before that, where it was registered: {PUSH_LOG}"
            raise ProjectError(problem, f"{fix}; if that is lost: dvc repro --force --single-item register")
        raise ProjectError(problem, "dvc repro: register makes it")
    return Registry(name, dict(sorted((int(each.version), each) for each in versions)), models.get(name, {}), log)


def apply(registry: Registry, aliases: dict[str, int], log: Iterable[AliasChange]) -> None:
    """Set aliases in MLflow, and copy entries of the log to it. A repetition changes nothing."""
    with mlflow_client.translate_errors(mlflow_client.RETRY):
        client = mlflow_client.client()
        for alias, number in aliases.items():
            client.set_registered_model_alias(registry.name, alias, str(number))
        if CHAMPION in aliases and registry.aliases.get(CHALLENGER) == aliases[CHAMPION]:  # it has won
            client.delete_registered_model_alias(registry.name, CHALLENGER)
        for change in log:
            version = registry.versions.get(change.version)
            if version and change.tag not in version.tags:
                client.set_model_version_tag(registry.name, str(change.version), change.tag, change.entry())


def replay() -> list[str]:
    """Give MLflow the aliases of the log that it lacks, as after a wipe, and return a line for each.

    Where it has an alias elsewhere, that stays, since another clone may know better, and ProjectError is raised.
    """
    registry = read()
    wanted = {alias: number for alias in ALIASES if (number := registry.holder(alias)) in registry.versions}
    dataclasses.replace(registry, aliases={**wanted, **registry.aliases}).check_agrees()
    missing = {alias: number for alias, number in wanted.items() if alias not in registry.aliases}
    apply(registry, missing, alias_changes(kinds=(MOVE, REFUSAL)))
    return [f"in MLflow {alias} is version {number}; it was none" for alias, number in missing.items()]
