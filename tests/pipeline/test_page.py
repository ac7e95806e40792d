"""`trace --html`: one page for each kind of name, which loads nothing, escapes everything, and says what is missing."""

import base64
import json
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ..conftest import BakedProject
from ..projects import commit, copied, edit, lock, out_md5
from .conftest import SUBJECT

VOID = {"meta", "img", "br", "link", "input", "hr", "polyline"}
LOADS = {"src", "href", "srcset", "action", "poster", "data", "background", "xlink:href", "formaction", "ping"}
QUESTIONS = ("What made", "Is it in use", "Whose records", "Is the record intact", "What else is affected")
WITHOUT_RULE = """
import sys
from pathlib import Path
from mlops.lineage.page import write_page
from mlops.lineage.trace import trace
graph = trace("1")
(consent,) = (node for node in graph.nodes.values() if node.kind == "consent")
consent.facts["rule"] = "not_required"
write_page(graph, Path(sys.argv[1]))
"""
HOSTILE = "<img src=x onerror=alert(1)>\"'&amp;{{ 7 * 7 }}{% raw %}</script><script>alert(2)</script>"


class Page(HTMLParser):
    """A page: its elements and its text.

    Attributes:
        elements: The elements, each with its attributes.
        unclosed: What was opened and never closed, or closed out of turn.
    """

    def __init__(self, text: str) -> None:
        """Read a page."""
        super().__init__()
        self.source, self.text = text, ""
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.unclosed: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element, and that it is open."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.unclosed.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that closes itself."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last."""
        if self.unclosed and self.unclosed[-1] == tag:
            self.unclosed.pop()
        else:
            self.unclosed.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        """Add to the text."""
        self.text += data

    def all(self, tag: str) -> Iterator[dict[str, str]]:
        """Yield the attributes of the elements with a tag."""
        return (attributes for name, attributes in self.elements if name == tag)


@pytest.fixture
def project(opted_out: BakedProject, tmp_path: Path) -> BakedProject:
    """A project whose version 2, the champion, replaced version 1."""
    return copied(opted_out, tmp_path / "project")


def page_of(project: BakedProject, name: str, *options: str) -> Page:
    """Write a page, check what is so of each, and return it."""
    path = project.path / ".dvc/tmp/page.html"
    project.run(sys.executable, "-m", "mlops", "trace", name, "--html", path.as_posix(), *options)
    page = Page(path.read_text(encoding="utf-8"))
    assert page.unclosed == [], "each element is closed in turn"
    addresses = [value for _, attributes in page.elements for key, value in attributes.items() if key in LOADS]
    assert all(value.startswith(("#", "data:image/")) for value in addresses), addresses
    assert not re.search(r"url\(|@import|<link|<iframe|<object", page.source)
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert "default-src 'none'" in policy
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in addresses if value.startswith("#")} <= set(ids)
    assert all("alt" in image for image in page.all("img")) and all("scope" in head for head in page.all("th"))
    assert next(page.all("html"))["lang"] == "en" and len(list(page.all("h1"))) == 1
    headings = re.findall(r"<h2[^>]*>\d\. ([^<]*)", page.source)
    assert [heading.startswith(start) for heading, start in zip(headings, QUESTIONS, strict=True)] == [True] * 5
    return page


def shards(project: BakedProject, tag: str) -> list[Path]:
    """Return the files with the listing of a version's dataset, in the cache and in the remote."""
    md5 = out_md5(lock(project, tag), "data/dataset")
    stores = (project.path / ".dvc/cache", project.path / "dvc-storage")
    return [store / "files/md5" / md5[:2] / md5[2:] for store in stores]


def test_page_of_a_version_answers_the_five_questions(opted_out: BakedProject) -> None:
    page = page_of(opted_out, "champion")
    graph = json.loads(opted_out.run(sys.executable, "-m", "mlops", "trace", "champion", "--json").stdout)
    for node in graph["nodes"]:
        if node["kind"] in ("run", "commit", "dataset", "consent"):
            assert node["id"].partition("@")[0] in page.text, "each hash is whole somewhere"
    version = next(node["facts"] for node in graph["nodes"] if node["key"] == "version:2")
    assert version["model_md5"] in page.text and version["model_sha256"] in page.text
    assert version["moves"][-1]["why"] in page.text
    assert "version 1 → version 2" in page.text
    assert "1667 records of 13 subjects" in page.text and "INTACT" in page.text
    assert "mlops verify version:2 --deep" in page.text and "mlops reproduce version:2" in page.text
    assert SUBJECT not in page.source, "subjects are counted, and not named"
    assert len(list(page.all("polyline"))) > 3 and "Which labels it confuses" in page.text


def test_page_shows_records_of_subjects_who_consent_alone_and_none_if_asked(project: BakedProject) -> None:
    images = [image["src"] for image in page_of(project, "1").all("img")]
    assert len(images) == 30, "three of each label"
    assert base64.b64decode(images[0].partition(",")[2]).startswith(b"\x89PNG")
    registry = (project.path / "data/consent.csv").read_text(encoding="utf-8")
    withdrawn = registry.replace(",active", ",withdrawn")
    assert withdrawn != registry
    (project.path / "data/consent.csv").write_text(withdrawn, encoding="utf-8", newline="\n")
    page = page_of(project, "1")
    assert list(page.all("img")) == [] and "subjects who consent today" in page.text
    assert SUBJECT not in page.source and "form-04" not in page.source
    project.run(sys.executable, "-c", WITHOUT_RULE, "unneeded.html")
    assert "data:image" not in (project.path / "unneeded.html").read_text(encoding="utf-8"), "today's rule counts too"
    without = page_of(project, "2", "--no-images")
    assert list(without.all("img")) == [] and "left out of this page: --no-images" in without.text


def test_page_of_each_kind_of_name(opted_out: BakedProject) -> None:
    md5 = out_md5(lock(opted_out, "digit-classifier@v1.0.0"), "data/dataset")
    dataset = page_of(opted_out, f"data:{md5}")
    assert md5 in dataset.text and "digit-classifier version 1" in dataset.text
    commit_page = page_of(opted_out, "HEAD")
    assert "no registered version was made from it" in commit_page.text
    subject = page_of(opted_out, f"subject:{SUBJECT}")
    assert SUBJECT in subject.text and "digit-classifier version 1" in subject.text
    assert list(subject.all("img")) == []
    graph = json.loads(opted_out.run(sys.executable, "-m", "mlops", "trace", "1", "--json").stdout)
    run = next(node["id"] for node in graph["nodes"] if node["kind"] == "run")
    run_page = page_of(opted_out, f"run:{run}")
    assert f"mlops reproduce run:{run}" in run_page.text and "version 1 → version 2" in run_page.text
    assert "on the same data" not in run_page.text, "its own version is no other one"


def test_page_escapes_what_people_wrote(project: BakedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # nobody waits for an answer about who promotes
    edit(project, "params.yaml", "init_from:  ", "init_from:\n  note: |\n    " + HOSTILE + "\n  other:  ")
    commit(project, HOSTILE)
    project.run(sys.executable, "-m", "mlops", "registry", "promote", "1", "--why", HOSTILE, "--anyway")
    for name in ("1", "HEAD", "2"):
        page = page_of(project, name)
        assert len(list(page.all("script"))) == 1 and "onerror" not in {k for _, a in page.elements for k in a}
        assert not [image for image in page.all("img") if image["src"] == "x"]
        assert HOSTILE in page.text


def test_page_says_what_cannot_be_read_and_has_the_rest(project: BakedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in shards(project, "digit-classifier@v2.0.0"):
        path.unlink()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    page = page_of(project, "2")
    assert "What could not be read" in page.text and "can't be reached" in page.text
    assert "images: the file" in page.text and list(page.all("img")) == []
    assert "Its records could not be read" in page.text
    assert "BROKEN at hop" in page.text and "1667 records of 13 subjects" in page.text
    shutil.rmtree(project.path / "dvc-storage")
    shutil.rmtree(project.path / ".dvc/cache")
    page = page_of(project, "2")
    assert "the remote" in page.text and list(page.all("polyline")) == []
    assert "version 1 → version 2" in page.text


def test_page_beside_json_leaves_the_graph_whole(opted_out: BakedProject, tmp_path: Path) -> None:
    arguments = (sys.executable, "-m", "mlops", "trace", "1", "--json")
    with_page = opted_out.run(*arguments, "--html", (tmp_path / "page.html").as_posix())
    assert json.loads(with_page.stdout) == json.loads(opted_out.run(*arguments).stdout)


def test_page_into_a_folder_is_refused_and_the_fix_helps(opted_out: BakedProject, tmp_path: Path) -> None:
    arguments = (sys.executable, "-m", "mlops", "trace", "1", "--html")
    done = opted_out.run(*arguments, tmp_path.as_posix(), check=False)
    assert done.returncode == 2 and f"{tmp_path.as_posix()} is a folder" in done.stderr
    fix = done.stderr.partition("name a file: --html ")[2].strip()
    opted_out.run(*arguments, fix)
    assert Path(fix).read_text(encoding="utf-8").startswith("<!doctype html>")
