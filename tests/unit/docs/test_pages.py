"""The documentation: links lead somewhere, code compiles, commands and names exist."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml

from amqp_tasks.cli._main import root

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
OUR_PACKAGES = ("amqp_tasks", "amqp_routing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """All fenced blocks of these languages."""
    return [block for page in PAGES for block in _blocks(page) if block.language in languages]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page=str(page.relative_to(ROOT)), line=line, language=found[2], text=found[3])


def python_source(block: Block) -> str:
    """The block's code, with included files in place."""
    return re.sub(
        r'^--8<-- "(.+)"$',
        lambda name: (DOCS / "examples" / name[1]).read_text(),
        block.text,
        flags=re.MULTILINE,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_other_pages_lead_to_files(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    targets = [target.split("#")[0] for target in LINK.findall(text) if not re.match(r"[a-z]+:|#", target)]

    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_page_stands_in_the_navigation() -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=yaml.BaseLoader)

    assert sorted(_targets(config["nav"])) == sorted(
        str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")
    )


def test_the_home_page_leads_to_every_page_but_single_decisions() -> None:
    linked = {target.split("#")[0] for target in LINK.findall((DOCS / "index.md").read_text())}
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if page.parent.name != "adr"}

    assert pages - linked == {"index.md"}


def _targets(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, list):
        for entry in nav:
            yield from _targets(entry)
    elif isinstance(nav, dict):
        for entry in nav.values():
            yield from _targets(entry)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_in_pages_compiles_and_names_what_exists(block: Block) -> None:
    tree = ast.parse(python_source(block), filename=str(block))
    compile(tree, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OUR_PACKAGES:
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_hello_world_of_the_readme_is_the_example_that_is_run() -> None:
    shown = [block.text for block in blocks("python") if block.page == "README.md"]

    assert shown == [(DOCS / "examples" / "hello" / name).read_text() for name in ("tasks.py", "call.py")]


def commands() -> list[tuple[str, list[str]]]:
    """Every call of `amqp-tasks` in a shell block, by its place."""
    found = []
    for block in blocks("sh", "bash", "console"):
        for number, line in enumerate(block.text.replace("\\\n", " ").splitlines()):
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                words.pop(0)
            if words[:1] == ["amqp-tasks"]:
                end = next(
                    (index for index, word in enumerate(words) if word in ("|", "||", "&&", ">", "&")),
                    len(words),
                )
                found.append((f"{block}+{number}", words[1:end]))
    return found


@pytest.mark.parametrize("arguments", [pytest.param(words, id=place) for place, words in commands()])
def test_commands_in_pages_parse(arguments: list[str]) -> None:
    _parse(root, "amqp-tasks", arguments, None)


def _parse(command: click.Command, name: str, arguments: list[str], parent: click.Context | None) -> None:
    with command.make_context(name, list(arguments), parent=parent, resilient_parsing=False) as context:
        if not isinstance(command, click.Group):
            return
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        child_name, child, child_arguments = command.resolve_command(context, rest)
        assert child is not None
        assert child_name is not None
        _parse(child, child_name, child_arguments, context)


def test_make_targets_in_pages_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"(?<=[`\n])make ([a-z]+)", page.read_text())}

    assert named
    assert named <= targets
