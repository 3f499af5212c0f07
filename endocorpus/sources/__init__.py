"""The sources: one declarative module each, found by listing this folder, with its facts in `manifests/sources`."""

from __future__ import annotations

import dataclasses
import pkgutil
import tomllib
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

from endocorpus.errors import UsageError, did_you_mean
from endocorpus.manifests import manifests_folder
from endocorpus.records import Privacy, as_rate, plain_fraction
from endocorpus.sources.layout import Archive, Expected, FrameFolders, Layout, Source

_PACKAGE = Path(__file__).parent
_HELPERS = {"layout", "readers"}
SOURCES: tuple[str, ...] = tuple(
    sorted(
        module.name.replace("_", "-") for module in pkgutil.iter_modules([str(_PACKAGE)]) if module.name not in _HELPERS
    )
)


def load_source(name: str, privacy: Privacy | None = None, rate: str | None = None) -> Source:
    """A source's declaration; reads its facts file and nothing of the data.

    Args:
        name: one of `SOURCES`.
        privacy: what the owner of a `folder` says of it; other sources declare it themselves.
        rate: frames per second of a `folder`'s images, such as "30" or "30000/1001".

    Raises:
        UsageError: no such source, not a rate, or something said of a source that declares it itself.
    """
    if name not in SOURCES:
        raise UsageError(f"no source {name!r}{did_you_mean(name, SOURCES)}")
    if name != "folder" and (privacy or rate):
        raise UsageError(f"{'--privacy' if privacy else '--rate'} is for the source 'folder'; {name} declares its own")
    facts = tomllib.loads((manifests_folder() / "sources" / f"{name}.toml").read_text(encoding="utf-8"))
    module = import_module(f"endocorpus.sources.{name.replace('-', '_')}")
    source = _source(name, facts, module.LAYOUT)
    if rate:
        told = read_rate(rate)
        if told is None:
            raise UsageError(f"--rate {rate}: expected frames per second, such as 30 or 30000/1001")
        source = dataclasses.replace(source, layout=_with_rate(source.layout, told))
    return dataclasses.replace(source, privacy=privacy) if privacy else source


def read_rate(text: str) -> Fraction | None:
    """Frames per second as people and tables write them: "25", "29.97", "30000/1001"; None if it is no rate.

    29.97 and its kin are rounded: above 5, what 1000/1001 of a whole number rounds to is taken for just that.
    """
    rate = plain_fraction(text)
    if rate is None or not 0 < rate <= 1000:
        return None
    broadcast = round(rate * Fraction(1001, 1000)) * Fraction(1000, 1001)
    near = rate > 5 and rate.denominator > 1 and abs(broadcast - rate) < Fraction(1, 200)
    return as_rate(broadcast if near else rate)


def _with_rate(layout: Layout, rate: Fraction) -> Layout:
    return tuple(dataclasses.replace(rule, rate=rate) if isinstance(rule, FrameFolders) else rule for rule in layout)


def _source(name: str, facts: dict[str, Any], layout: Any) -> Source:
    return Source(
        name=name,
        layout=layout,
        year=facts.pop("year", None),
        traps=tuple(facts.pop("traps")),
        unverified=tuple(facts.pop("unverified")),
        archives=tuple(Archive(**archive) for archive in facts.pop("archive", [])),
        expected={what: Expected(**fact) for what, fact in facts.pop("expected", {}).items()},
        **facts,
    )


def source_facts(source: Source) -> dict[str, object]:
    """A source's declaration without its layout, as it stands in corpus.json."""
    facts = {field.name: getattr(source, field.name) for field in dataclasses.fields(source) if field.name != "layout"}
    return facts | {
        "traps": list(source.traps),
        "unverified": list(source.unverified),
        "archives": [dataclasses.asdict(archive) for archive in source.archives],
        "expected": {what: dataclasses.asdict(expected) for what, expected in source.expected.items()},
    }
