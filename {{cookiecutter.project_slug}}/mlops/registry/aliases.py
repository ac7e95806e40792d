"""Which version has which alias: in MLflow, and in the log, which also says who gave it, when and why.

    git log --first-parent --grep "^move: " --grep "^refusal: " lineage

The log consists of entries of the Git branch `lineage`. It is the authority: `mirror repair` gives a wiped MLflow its
aliases back. A refusal is an entry of its own, which moves nothing.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import home, load_platform
from ..errors import ProjectError
from ..tracking import lineage_log, mlflow_client, mlflow_reader
from ..tracking.git import git
from ..tracking.mlflow_reader import StoredVersion
from ..tracking.sync_status import REPAIR

CHAMPION, CHALLENGER = "champion", "challenger"
ALIASES = (CHALLENGER, CHAMPION)
MOVE, REFUSAL = "move", "refusal"  # kinds of entries; tags in MLflow begin so: copies of the log's entries, for people
REFUSE = "refuse"  # the action of a refusal
VERB = "python -m mlops registry"
RETRY = "see that the server is up (platform.yaml:tracking_uri), then run the same command again"
FETCH_LOG = "git fetch origin lineage:lineage"
PUSH_LOG = "python -m mlops lineage push"
UPDATE_LOG = f"{FETCH_LOG} (with entries of your own: {PUSH_LOG})"
SYNC_LOG = f"moved in another clone: there {PUSH_LOG}, here {UPDATE_LOG}; moved by hand: {VERB} promote records it"


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
            raise ProjectError(problem, f"see it: git show {commit}") from error


def alias_changes(log_ref: str = lineage_log.REF, kinds: Iterable[str] = (MOVE,)) -> list[AliasChange]:
    """Return the changes of the project's model in a log, the oldest first; raise if it is cut off, or damaged.

    Refusals are among them only if `kinds` has them.
    """
    lineage_log.check_not_shallow()
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
            raise ProjectError(f"{self.name} has no version {text} in MLflow (it has {known})", f"{VERB} list")
        return self.versions[number]

    def check_agrees(self, change: AliasChange | None = None) -> None:
        """Check that MLflow and the log agree: else a version would be compared with the wrong champion, or with none.

        Given a change, only what matters to it is checked; an interrupted command may have made it in MLflow already.
        """
        for alias in (CHAMPION,) if change and change.alias == CHAMPION else ALIASES:
            in_mlflow, in_log = self.aliases.get(alias), self.holder(alias)
            right = {in_log if in_log in self.versions else None}  # MLflow takes a version's aliases away with it
            if in_mlflow not in right | ({change.version} if change and change.alias == alias else set()):
                raise ProjectError(
                    f"{alias} is {in_mlflow or 'none'} in MLflow, and {in_log or 'none'} in the log of this clone",
                    f"moved in another clone: there {PUSH_LOG}, here {UPDATE_LOG}. Moved by hand: {VERB} promote "
                    f"{in_mlflow or '<version>'} --to {alias} records it. Lost by MLflow: {REPAIR}",
                )
        if CHAMPION not in self.aliases and lineage_log.is_behind_remote():
            problem = "MLflow has no champion, and the log of a Git remote has entries that this clone's lacks"
            raise ProjectError(f"{problem}: nobody can tell who is champion", UPDATE_LOG)


def read(may_be_empty: bool = False) -> Registry:
    """Read what MLflow and the log know; raise ProjectError if one can't be read, or (unless that may be) is empty."""
    name, log = load_platform().project, alias_changes()
    with mlflow_client.translate_errors(RETRY):
        reader = mlflow_reader.connect()
        models = reader.aliases(name)
        versions = reader.versions(name) if models else []
    if not models and not may_be_empty:
        problem = f"MLflow at {mlflow_client.tracking_uri()} has no registered model {name}"
        if numbers := {entry.version for entry in lineage_log.log() if entry.version is not None}:
            problem += f", and the log has its versions: {', '.join(map(str, sorted(numbers)))}"
            raise ProjectError(problem, f"{REPAIR}; or platform.yaml:tracking_uri: the server that has them")
        raise ProjectError(problem, "dvc repro: register makes it")
    return Registry(name, dict(sorted((int(each.version), each) for each in versions)), models.get(name, {}), log)


def apply(registry: Registry, aliases: dict[str, int], log: Iterable[AliasChange]) -> None:
    """Set aliases in MLflow, and copy entries of the log to it. A repetition changes nothing."""
    with mlflow_client.translate_errors(RETRY):
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
