"""`python -m tools.methods_page` writes the page; `--check` fails if that would change it."""

import sys
from typing import Annotated

import typer

from tools.methods_page import checkpoints
from tools.methods_page.page import PATH, outdated, write


def main(*, check: Annotated[bool, typer.Option("--check")] = False) -> None:
    """Measure every method, which takes a minute or two."""
    if not check:
        checkpoints.PATH.write_text(checkpoints.page(), encoding="utf-8")
        typer.echo(f"{PATH}{'' if write() else ' is current'}")
    elif checkpoints.page() != checkpoints.PATH.read_text(encoding="utf-8"):
        sys.exit("the table in docs/checkpoints.md is out of date")
    elif lines := outdated():
        sys.exit(f"docs/methods.md is out of date, such as: {lines[0]}")


if __name__ == "__main__":
    typer.run(main)
