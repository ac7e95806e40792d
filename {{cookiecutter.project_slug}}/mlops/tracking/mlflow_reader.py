"""Read runs and registered versions from MLflow: files and servers without its package, which takes long to import.

All readers give the same answers. What the two fast ones don't know is left to MLflow's own client: a database with
other tables than those of `SCHEMA`, a server with a login of another kind, every other store.
"""

import base64
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import mlflow_client
from .mlflow_client import SQLITE, pages
from .mlflow_sync import MIRROR_ID

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from requests import Response

SCHEMA = "dc11669786a5"  # revision of the tables, as MLflow records it in `alembic_version`
CREDENTIALS = Path("~/.mlflow/credentials")  # where a login may be that the environment does not have
SETTINGS = (  # with one of these, or with that file, MLflow reads from elsewhere, or in another way
    *("MLFLOW_ENABLE_WORKSPACES", "MLFLOW_WORKSPACE", "MLFLOW_TRACKING_AUTH"),
    *("MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_CLIENT_CERT_PATH"),
)
FACTS = (  # what is read of a run: params or tags, as the version of the project that recorded it had them
    *(MIRROR_ID, "mlflow.runName", "manifest_sha256", "parents"),
    *("dataset_md5", "data_version", "dvc_exp_name"),
)
API = "/api/2.0/mlflow/"
PAGE = 1000  # runs; a busy server takes 5 s for them, and a request may take 20
ORDER = ["attributes.start_time ASC"]  # a run that begins meanwhile doesn't move the pages
TIMEOUT_S = 20  # for a process that writes
HAS_ENDED = " and attributes.status != 'RUNNING' and attributes.status != 'SCHEDULED'"
# One statement for each question. Tables of the registry also hold texts (prompts), which MLflow's searches leave out.
RUNS = f"""
SELECT run_uuid, name, experiment_id, status, start_time, end_time, lifecycle_stage = 'deleted',
    (SELECT json_group_object(key, value) FROM tags t WHERE t.run_uuid = r.run_uuid AND key IN {FACTS}),
    (SELECT json_group_object(key, value) FROM params p WHERE p.run_uuid = r.run_uuid AND key IN {FACTS})
FROM runs r WHERE experiment_id IN (SELECT value FROM json_each(?))
"""  # noqa: S608 (names, above)
MODELS = """
SELECT name, (SELECT json_group_object(alias, version) FROM registered_model_aliases a
    WHERE (a.workspace, a.name) = (m.workspace, m.name))
FROM registered_models m WHERE workspace = 'default' AND ? IN ('', name) AND name NOT IN
    (SELECT name FROM registered_model_tags WHERE (key, value) = ('mlflow.prompt.is_prompt', 'true'))
"""
VERSIONS = """
SELECT name, version, run_id, creation_time, (SELECT json_group_object(key, value) FROM model_version_tags t
    WHERE (t.workspace, t.name, t.version) = (v.workspace, v.name, v.version))
FROM model_versions v WHERE workspace = 'default' AND ? IN ('', name) AND current_stage != 'Deleted_Internal' AND
    name NOT IN (SELECT name FROM model_version_tags WHERE (key, value) = ('mlflow.prompt.is_prompt', 'true'))
"""


@dataclass(frozen=True, slots=True)
class StoredExperiment:
    """An experiment in MLflow."""

    id: str
    name: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run in MLflow."""

    id: str  # MLflow's
    name: str
    experiment: str  # its id
    status: str
    started_ms: int | None
    ended_ms: int | None
    deleted: bool
    facts: dict[str, str]  # those of `FACTS` that it has


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version in MLflow's model registry; its fields are named as MLflow's client names them."""

    name: str
    version: str
    run_id: str | None
    creation_timestamp: int  # ms
    tags: dict[str, str]


class SqliteReader:
    """Reads the SQLite file. Each question is one statement, so it sees one state, whoever writes meanwhile."""

    def __init__(self, path: Path) -> None:
        # `rw`: what a killed writer left half done can be rolled back. The file is not made, and nothing else written.
        self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", TIMEOUT_S, isolation_level=None, uri=True)
        self._db.execute("PRAGMA query_only = ON")

    def schema(self) -> str:
        """Return the revision of the tables; "" if the file has none of MLflow's."""
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return ""
        return ",".join(revision for (revision,) in self._db.execute("SELECT version_num FROM alembic_version"))

    def experiments(self) -> list[StoredExperiment]:
        """Return all experiments, deleted ones too."""
        rows = self._db.execute("SELECT experiment_id, name, lifecycle_stage = 'deleted' FROM experiments")
        return [StoredExperiment(str(number), name, bool(deleted)) for number, name, deleted in rows]

    def runs(self, experiments: Iterable[str], query: str = "") -> list[StoredRun]:
        """Return the runs of experiments, deleted ones too, the first one first; `query` is for stores far away."""
        rows = self._db.execute(RUNS, (json.dumps(list(map(int, experiments))),))
        runs = []
        for run, name, experiment, status, started, ended, deleted, tags, params in rows:
            facts = json.loads(tags) | json.loads(params)
            name = name or facts.get("mlflow.runName", "")
            runs.append(StoredRun(run, name, str(experiment), status, started, ended, bool(deleted), facts))
        return _in_order(runs)

    def params(self, run_id: str) -> dict[str, str]:
        """Return all params of a run, by MLflow's id of it."""
        return dict(self._db.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run_id,)))

    def location(self, model: str, number: int) -> str:
        """Return where the files of a version are; "" where MLflow has none."""
        query = "SELECT storage_location FROM model_versions WHERE workspace = 'default' AND (name, version) = (?, ?)"
        row = self._db.execute(query, (model, number)).fetchone()
        return str(row[0]) if row and row[0] else ""

    def aliases(self, model: str = "") -> dict[str, dict[str, int]]:
        """Return the aliases of each registered model, or of this one, with their versions."""
        return {name: json.loads(aliases) for name, aliases in self._db.execute(MODELS, (model,))}

    def versions(self, model: str = "") -> list[StoredVersion]:
        """Return the versions of all registered models, or of this one."""
        rows = self._db.execute(VERSIONS, (model,))
        return [
            StoredVersion(name, str(number), run, created_ms, json.loads(tags))
            for name, number, run, created_ms, tags in rows
        ]


class RestReader:
    """Reads from a server by MLflow's REST API."""

    def __init__(self, uri: str) -> None:
        import requests

        self._url, self._session = uri.rstrip("/"), requests.Session()
        login = [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD", "TOKEN")]
        if all(login[:2]):
            text = base64.b64encode(":".join(login[:2]).encode()).decode()
            self._session.headers["Authorization"] = f"Basic {text}"
        elif login[2]:
            self._session.headers["Authorization"] = f"Bearer {login[2]}"
        is_insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
        self._verify = not is_insecure and (os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True)

    def request(self, method: str, path: str, fields: dict[str, Any], timeout_s: float) -> "Response":
        """Ask the API; return the response, whatever its status."""
        body, query = (fields, None) if method == "POST" else (None, fields)
        return self._session.request(method, self._url + path, query, json=body, verify=self._verify, timeout=timeout_s)

    def _page(self, method: str, what: str, fields: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in fields.items() if value}
        timeout_s = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT_S))
        return content_of(self.request(method, f"{API}{what}/search", given, timeout_s))

    def _search(self, method: str, what: str, **fields: Any) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            page = self._page(method, what, {**fields, "max_results": PAGE, "page_token": token})
            yield from page.get(what.replace("-", "_"), ())
            if not (token := page.get("next_page_token", "")):
                return

    def experiments(self) -> list[StoredExperiment]:
        """Return all experiments, deleted ones too."""
        every = self._search("POST", "experiments", view_type="ALL")
        return [StoredExperiment(it["experiment_id"], it["name"], it["lifecycle_stage"] == "deleted") for it in every]

    def runs(self, experiments: Iterable[str], query: str = "") -> list[StoredRun]:
        """Return the runs of experiments, deleted ones too, the first one first; `query` is MLflow's filter."""
        if not (ids := list(experiments)):
            return []
        fields = {"experiment_ids": ids, "filter": query, "run_view_type": "ALL", "order_by": ORDER}
        return _in_order([self._run(run["info"], run["data"]) for run in self._search("POST", "runs", **fields)])

    @staticmethod
    def _run(info: dict[str, Any], data: dict[str, Any]) -> StoredRun:
        facts = _facts(_texts(data.get("tags", ())) | _texts(data.get("params", ())))
        times, deleted = (info.get("start_time"), info.get("end_time")), info["lifecycle_stage"] == "deleted"
        name = info.get("run_name", "")
        return StoredRun(info["run_id"], name, info["experiment_id"], info["status"], *times, deleted, facts)

    def params(self, run_id: str) -> dict[str, str]:
        """Return all params of a run, by MLflow's id of it."""
        timeout_s = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT_S))
        answer = content_of(self.request("GET", f"{API}runs/get", {"run_id": run_id}, timeout_s))
        return _texts(answer["run"]["data"].get("params", ()))

    def have_ended(self, experiment: str, query: str, number: int) -> bool:
        """Return whether just so many runs of an experiment match and have ended; only one of them is sent."""
        fields = {"experiment_ids": [experiment], "filter": f"{query}{HAS_ENDED}", "max_results": 1}
        first, second = (
            self._page("POST", "runs", {**fields, "page_token": _token(skipped)}) for skipped in (number - 1, number)
        )
        return bool(first.get("runs")) and not second.get("runs")

    def aliases(self, model: str = "") -> dict[str, dict[str, int]]:
        """Return the aliases of each registered model, or of this one, with their versions."""
        models = self._search("GET", "registered-models", filter=_named(model))
        return {it["name"]: {a["alias"]: int(a["version"]) for a in it.get("aliases", ())} for it in models}

    def versions(self, model: str = "") -> list[StoredVersion]:
        """Return the versions of all registered models, or of this one."""
        return [
            StoredVersion(
                *(it["name"], it["version"], it.get("run_id"), it["creation_timestamp"], _texts(it.get("tags", ())))
            )
            for it in self._search("GET", "model-versions", filter=_named(model))
        ]


class ClientReader:
    """Reads any store by MLflow's client."""

    def __init__(self, client: "MlflowClient") -> None:
        self._client = client

    def request(self, method: str, path: str, fields: dict[str, Any], timeout_s: float) -> "Response":
        """Ask the API of a server, as MLflow logs in to it; return the response, whatever its status."""
        from mlflow.tracking._tracking_service import utils
        from mlflow.utils import rest_utils

        get_store: Callable[..., Any] = utils._get_store  # MLflow has no types here
        send: Callable[..., Response] = rest_utils.http_request
        body = {"json": fields} if method == "POST" else {"params": fields}
        login = get_store(self._client.tracking_uri).get_host_creds()
        return send(login, path, method, max_retries=0, timeout=timeout_s, raise_on_status=False, **body)

    def experiments(self) -> list[StoredExperiment]:
        """Return all experiments, deleted ones too."""
        from mlflow.entities import ViewType

        every = pages(partial(self._client.search_experiments, ViewType.ALL))
        return [StoredExperiment(each.experiment_id, each.name, each.lifecycle_stage == "deleted") for each in every]

    def runs(self, experiments: Iterable[str], query: str = "") -> list[StoredRun]:
        """Return the runs of experiments, deleted ones too, the first one first; `query` is MLflow's filter."""
        from mlflow.entities import ViewType

        ids = list(experiments)
        search = partial(self._client.search_runs, ids, query, ViewType.ALL, PAGE, ORDER)
        return _in_order([self._run(run) for run in (pages(search) if ids else ())])

    @staticmethod
    def _run(run: Any) -> StoredRun:
        info, facts = run.info, _facts({**run.data.tags, **run.data.params})
        times, deleted = (info.start_time, info.end_time), info.lifecycle_stage == "deleted"
        return StoredRun(info.run_id, info.run_name or "", info.experiment_id, info.status, *times, deleted, facts)

    def params(self, run_id: str) -> dict[str, str]:
        """Return all params of a run, by MLflow's id of it."""
        return dict(self._client.get_run(run_id).data.params)

    def have_ended(self, experiment: str, query: str, number: int) -> bool:
        """Return whether just so many runs of an experiment match and have ended; only one of them is sent."""
        search = partial(self._client.search_runs, [experiment], f"{query}{HAS_ENDED}", max_results=1)
        return bool(search(page_token=_token(number - 1) or None)) and not search(page_token=_token(number))

    def aliases(self, model: str = "") -> dict[str, dict[str, int]]:
        """Return the aliases of each registered model, or of this one, with their versions."""
        search = partial(self._client.search_registered_models, _named(model))
        return {each.name: {alias: int(number) for alias, number in each.aliases.items()} for each in pages(search)}

    def versions(self, model: str = "") -> list[StoredVersion]:
        """Return the versions of all registered models, or of this one."""
        return [
            StoredVersion(each.name, str(each.version), each.run_id, each.creation_timestamp, each.tags)
            for each in pages(partial(self._client.search_model_versions, _named(model)))
        ]


Reader = SqliteReader | RestReader | ClientReader


def connect() -> Reader:
    """Open MLflow to read from it; errors are those of `mlflow_client.client`, and `sqlite3.Error`."""
    uri = mlflow_client.tracking_uri()
    path = Path(uri.removeprefix(SQLITE))
    if not (any(map(os.environ.get, SETTINGS)) or CREDENTIALS.expanduser().exists()):
        if uri.startswith(SQLITE) and path.is_file() and (reader := SqliteReader(path)).schema() == SCHEMA:
            return reader
        if uri.startswith(("http://", "https://")):
            return RestReader(uri)
    return ClientReader(mlflow_client.client())


def content_of(response: "Response") -> dict[str, Any]:
    """Return what a server's API answers; raise HTTPError, with what the server says, if it refuses."""
    from requests import HTTPError

    if not response.ok:
        is_page = "html" in response.headers.get("Content-Type", "")
        raise HTTPError(f"HTTP {response.status_code} {response.reason}{'' if is_page else f': {response.text[:500]}'}")
    return dict(response.json())


def _facts(known: dict[str, str]) -> dict[str, str]:
    return {name: known[name] for name in FACTS if name in known}


def _texts(pairs: Iterable[dict[str, str]]) -> dict[str, str]:
    return {pair["key"]: pair.get("value", "") for pair in pairs}


def _token(skipped: int) -> str:
    """Return MLflow's token of the page after so many runs; a server with other tokens refuses it with an error."""
    return base64.b64encode(json.dumps({"offset": skipped}).encode()).decode() if skipped else ""


def _in_order(runs: list[StoredRun]) -> list[StoredRun]:
    return sorted(runs, key=lambda run: (run.started_ms is None, run.started_ms or 0, run.id))


def _named(model: str) -> str:
    return f"name = '{model}'" if model else ""
