"""What the README says is so."""

import re
import subprocess
import sys
from pathlib import Path

from densenet121.cli import COMMANDS

from helpers.commands import REPOSITORY, environment

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_tables_of_flags_are_those_of_the_code() -> None:
    checked = subprocess.run(
        [sys.executable, REPOSITORY / "docs" / "flag_table.py", "--check"],
        env=environment(),
        check=False,
    )
    assert checked.returncode == 0, "run: python docs/flag_table.py"


def test_every_flag_it_mentions_exists() -> None:
    known = {name for config in COMMANDS.values() for name in config.__dataclass_fields__}
    mentioned = set(re.findall(r"--([A-Za-z][A-Za-z0-9_]+)", README))
    launchers = {"nproc_per_node", "ntasks"}  # torchrun's and srun's
    scripts = {"wait", "stop"}
    assert mentioned - known <= {"config", "print_config", "help"} | launchers | scripts


def test_every_make_target_and_file_it_mentions_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)\b +#", README)) == {"demo", "test"} <= targets
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (REPOSITORY / link).exists(), link
    for path in re.findall(r"`((?:tests|recipes|docs|scripts)/[\w./]+)`", README):
        assert (REPOSITORY / path).exists(), path


def test_the_interface_in_python_is_there() -> None:
    import densenet121

    for names in re.findall(r"from densenet121 import (.*)", README):
        for name in names.split(", "):
            assert getattr(densenet121, name)
    assert sorted(densenet121.__all__) == densenet121.__dir__()


def test_the_recipes_are_settings_that_train_takes() -> None:
    from densenet121.cli import parse

    recipes = sorted((REPOSITORY / "recipes").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        command, config = parse(["train", "--config", str(recipe), "--data_dir", "pictures"])
        assert (command, config.data_dir) == ("train", "pictures")
        first_lines = recipe.read_text().splitlines()[:3]
        assert all(line.startswith("#") for line in first_lines), "command, time, accuracy"


def test_no_path_of_the_machine_it_was_written_on() -> None:
    for path in (REPOSITORY / "README.md", *Path(REPOSITORY / "docs").glob("*.md")):
        assert not re.search(r"/(?:root|work|home)/", path.read_text(encoding="utf-8"))
