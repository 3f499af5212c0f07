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
    raise UsageError(f"{root}: no such folder. {_how_to_get(source, root)}")


def _how_to_get(source: Source, root: Path) -> str:
    """What to type next, in short sentences; the last one can be copied to its end."""
    from endocorpus.phantom.layouts import LAYOUTS

    if source.name == "folder":
        return source.obtain
    command = f"`endocorpus fetch {source.name} --dest {root}`"
    if any(archive.url for archive in source.archives):
        told = [f"Download the data: {command}."]
    elif source.access == "private":
        told = [f"The data is not given out; {command} says more."]
    else:
        told = [f"Get the data from {source.home}; {command} tells the steps."]
    told.append("If it lies elsewhere, say --root.")
    if source.name in LAYOUTS:
        told.append(f"Or render a stand-in: endocorpus phantom --source {source.name} --out {root}")
    return " ".join(told)


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
