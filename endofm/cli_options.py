"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from endocorpus.errors import UsageError


def _place(value: str) -> str | Path:
    """A folder, or an address. Neither is looked at before it is needed."""
    return value if "://" in value else Path(value)


class LocalFolder(click.Path):
    """A folder of this machine; an address is refused in words, instead of as a folder that is not there."""

    def __init__(self) -> None:
        """Whether there is such a folder is for its reader to say."""
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            raise UsageError(f"{value}: is an address; this option takes a folder of this machine, so copy it here")
        return super().convert(value, param, ctx)


corpus_option = click.option(
    "--corpus",
    "corpora",
    type=_place,
    metavar="FOLDER|ADDRESS",
    multiple=True,
    required=True,
    help="Folder of a corpus, or its address (https://..., s3://...); may be given several times.",
)
config_option = click.option(
    "--config",
    "config_name",
    default="endofm",
    show_default=True,
    help="A recipe by its name (endofm, debug, others in docs/recipes.md) or a TOML file, which says what differs from "
    """endofm, or from debug if its first line is base = "debug".""",
)
set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Such as run.batch_size=8.")
