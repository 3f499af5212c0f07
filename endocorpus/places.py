"""Where the commands look for raw files and put a corpus, and what they name it, if they are not told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from endocorpus.errors import UsageError

if TYPE_CHECKING:
    from endocorpus.sources.layout import Source


def raw_root(source: Source, root: Path | None) -> Path:
    """Where the raw files of a source lie: `--root`, or below $ENDOCORPUS_RAW, or raw/<source>.

    Raises:
        UsageError: there is no such folder; says how to get the data and how to render a stand-in.
    """
    if root is None:
        given = os.environ.get("ENDOCORPUS_RAW")
        root = Path(given) if given else Path("raw") / source.name
        if given and (root / source.name).is_dir():
            root = root / source.name
    if root.is_dir():
        return root
    from endocorpus.phantom.layouts import LAYOUTS

    stand_in = f" Or render a stand-in: endocorpus phantom --source {source.name} --out {root} --seed 1"
    raise UsageError(
        f"{root}: no such folder, so there is nothing to build from. {source.obtain}"
        + (stand_in if source.name in LAYOUTS else "")
    )


def place_of(source: Source, out: Path | None, name: str | None) -> tuple[Path, str]:
    """Folder and name of the corpus that is meant. Each folder of recordings gets a name of its own, from its corpus'
    folder, since corpora of one name cannot be trained on together."""
    from endocorpus.corpus.shards import LONGEST_NAME
    from endocorpus.naming import hidden, make_id
    from endocorpus.staging import corpus_name

    out = out or Path("corpora") / (name or source.name)
    own = make_id("", out.resolve().name).strip("-") if source.name == "folder" else source.name
    if len(own) > LONGEST_NAME:
        own = f"{own[: LONGEST_NAME - 9].strip('-')}-{hidden(own)[:8]}"
    return out, name or corpus_name(out, source.name) or own or source.name
