"""Links of a generated project's pages: to files and headings that are there."""

import re
from pathlib import Path

CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def dangling_links(root: Path, pages: list[str]) -> list[str]:
    """Return the relative links of Markdown pages that lead to no file or no heading, as `page: link`."""
    every = [(page, link) for page in pages for link in links(root / page)]
    return [f"{page}: {link}" for page, link in every if not leads_somewhere(root / page, link)]


def links(page: Path) -> list[str]:
    """Return the links of a page, but for those to other sites."""
    every = LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))
    return [link for link in every if not re.match(r"\w+:", link)]


def leads_somewhere(page: Path, link: str) -> bool:
    """Say whether a link's file is there, and has the heading that it names."""
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    return target.exists() and (not anchor or anchor in anchors(target))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    blocks = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = (title.replace("`", "").lower() for title in HEADING.findall(blocks))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}
