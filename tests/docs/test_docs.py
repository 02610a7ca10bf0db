"""What the README and the documentation say is so."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from densenet121.cli import COMMANDS

from helpers.commands import REPOSITORY, environment

README = REPOSITORY / "README.md"
DOCS = REPOSITORY / "docs"
PAGES = [README, REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
COMMANDS_FOLDER = DOCS / "reference" / "commands"
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """What a link may point to: headings, as the site and the usual forges name them."""
    prose = FENCED.sub("", text_of(page))
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    found = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return found | set(re.findall(r"^::: (\S+)$", prose, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text_of(page))):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_can_be_read_at_one_sitting() -> None:
    assert len(text_of(README).splitlines()) <= 200


def test_the_site_has_the_limits_of_the_readme() -> None:
    of_readme, of_site = (
        re.findall(r"^## Limits\n(.*?)(?=^## |\Z)", text_of(page), re.MULTILINE | re.DOTALL)
        for page in (README, DOCS / "index.md")
    )
    assert len(of_readme) == 1
    assert [part.replace("](docs/", "](").strip() for part in of_readme] == [
        part.strip() for part in of_site
    ]


def test_every_page_is_in_the_navigation_and_in_the_readme_or_the_index_of_commands() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert set(re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)) == pages
    commands = {f"reference/commands/{name}.md" for name in COMMANDS}
    linked = {link.partition("#")[0] for link in re.findall(r"\]\(docs/([^)]+)\)", text_of(README))}
    assert pages - linked == commands | {"index.md"}


def test_the_reference_of_the_commands_is_that_of_the_code() -> None:
    checked = subprocess.run(
        [sys.executable, REPOSITORY / "tools" / "reference.py", "--check"],
        env=environment(),
        check=False,
    )
    assert checked.returncode == 0, "run: python tools/reference.py"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_of_a_command_is_in_its_reference(command: str) -> None:
    headings = set(re.findall(r"^### `(?:--)?(\w+)`$", text_of(page_of(command)), re.MULTILINE))
    names = {field.name.lower() for field in fields(COMMANDS[command])}
    assert {heading.lower() for heading in headings} == names


def page_of(command: str) -> Path:
    return COMMANDS_FOLDER / f"{command}.md"


def test_every_flag_that_is_mentioned_exists() -> None:
    known = {field.name for config in COMMANDS.values() for field in fields(config)}
    known |= {"config", "recipe", "print_config", "help"}
    known |= {"wait", "stop"}  # of the original's scripts
    known |= {"nproc_per_node", "nnodes", "max_restarts", "ntasks", "nodes", "requeue", "signal"}
    known |= {"rdzv_backend", "rdzv_id", "rdzv_endpoint", "node_rank", "gpus", "cpus"}
    known |= {
        "silent",
        "retry",
        "check",
        "strict",
        "field",
        "dry",
        "batch",
        "bf16",
        "size",
        "busy",
        "logdir",
        "epochs",
        "enable",
        "listen",
        "advertise",
        "http2",
    }  # of other tools
    for page in PAGES:
        mentioned = set(re.findall(r"(?<![\w-])--([A-Za-z]\w+)", text_of(page)))
        assert mentioned <= known, page


def test_every_make_target_and_file_that_is_mentioned_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in PAGES:
        text = text_of(page)
        assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets, page
        folders = "tests|recipes|docs|examples|scripts|tools|benchmarks"
        for path in re.findall(rf"`(?:python )?((?:{folders})/[\w./-]*)", text):
            assert (REPOSITORY / path).exists(), (page, path)


def test_the_interface_in_python_is_there() -> None:
    import densenet121

    for page in PAGES:
        for names in re.findall(r"from densenet121 import (.*)", text_of(page)):
            for name in names.split(", "):
                assert getattr(densenet121, name)
    assert sorted(densenet121.__all__) == densenet121.__dir__()


def test_every_name_of_the_interface_is_in_the_reference() -> None:
    import densenet121

    described = set(
        re.findall(r"^::: densenet121\.(\w+)$", text_of(DOCS / "reference/python.md"), re.M)
    )
    assert set(densenet121.__all__) - {"__version__", "TrainConfig", "EvalConfig"} == described


def test_every_part_of_the_package_is_described() -> None:
    structure = text_of(DOCS / "internals" / "structure.md")
    package = REPOSITORY / "src" / "densenet121"
    parts = [p for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    for part in parts:
        name = part.name if part.suffix == ".py" else f"{part.name}/"
        assert name == "__init__.py" or f"`{name}`" in structure, name


def test_the_recipes_are_settings_that_train_takes() -> None:
    from densenet121.cli import parse

    recipes = sorted((REPOSITORY / "recipes").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        command, config = parse(["train", "--config", str(recipe), "--data_dir", "images"])
        assert (command, config.data_dir) == ("train", "images")
        first_lines = recipe.read_text(encoding="utf-8").splitlines()[:3]
        assert all(line.startswith("#") for line in first_lines), "command, time, accuracy"


def test_no_path_of_the_machine_it_was_written_on() -> None:
    for page in PAGES:
        assert not re.search(r"(?<!\w)/(?:root|work|home|tmp)/", text_of(page)), page
