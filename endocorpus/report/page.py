"""The report: one HTML file that somebody reads before trusting a corpus. It loads nothing, not even from its folder.

The page says what the tables say. Its bytes depend on the corpus alone: no clock, no host, no path.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from endocorpus.console import duration
from endocorpus.corpus.files import atomic_file
from endocorpus.corpus.manifest import Corpus
from endocorpus.records import REASON_TEXT, Reason
from endocorpus.report import text
from endocorpus.report.charts import HEIGHT, WIDTH, Chart, chart
from endocorpus.report.notices import NOT_EXAMINED, expected_rows, notices
from endocorpus.report.sheet import contact_sheet
from endocorpus.report.stats import Stats, compute

OPEN_ROWS = 20  # longer lists are folded
MOST_ROWS = 2000  # of one reason; the rest stays in excluded.parquet


def write_report(corpus: Corpus, path: Path) -> None:
    """Write the report of `corpus` to `path`, whole or not at all; the folder of `path` is made.

    Raises:
        DataError: a table or a shard is missing or damaged.
        OSError: `path` cannot be written.
    """
    page = render(corpus).encode("utf-8")
    with atomic_file(path) as file:
        file.write(page)


def render(corpus: Corpus) -> str:
    """The page as text. Reads the tables, and one clip of up to 48 recordings.

    Raises:
        DataError: a table or a shard is missing or damaged.
    """
    stats, descriptor = compute(corpus), corpus.descriptor
    source, exclusions = descriptor["source"], _exclusions(corpus, stats)
    view = {
        "name": corpus.name,
        "source": source,
        "facts": _source_facts(source),
        "home_is_link": str(source["home"]).startswith(("http://", "https://")),
        "not_examined": NOT_EXAMINED,
        "stats": stats,
        "notices": notices(descriptor, stats),
        "expected": expected_rows(descriptor),
        "stride": descriptor["config"]["segment"]["stride"],
        "charts": _charts(stats),
        "chart_size": (WIDTH, HEIGHT),
        "rates": sorted(stats.rates.records(), key=lambda row: Fraction(str(row["rate"]))),
        "labels": _by_name(stats.labels.records()),
        "annotations": stats.annotations.records(),
        "exclusions": exclusions,
        "stray_files": descriptor["counts"]["excluded_files"],
        "unusable": descriptor["counts"]["unusable_annotations"],
        "open_rows": OPEN_ROWS,
        "sheet": contact_sheet(corpus),
        "made": _made(descriptor),
        "config": sorted(_flat(descriptor["config"])),
        "tables": sorted(descriptor["tables"].items()),
    }
    return _template().render(view)


def _template() -> jinja2.Template:
    folder = resources.files("endocorpus.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": text.number,
        "count": text.count,
        "size": text.size,
        "duration": lambda microseconds: duration(microseconds / 1e6),
        "rate": text.rate,
    }
    environment.globals["style"] = Markup((folder / "page.css").read_text(encoding="utf-8"))  # ours, nobody else's
    return environment.from_string((folder / "page.html.jinja").read_text(encoding="utf-8"))


def _source_facts(source: Mapping[str, Any]) -> list[tuple[str, str]]:
    access = {
        "open": "Anybody can download it.",
        "form": "After filling in the provider's form.",
        "email-password": "With a password that the provider sends by e-mail.",
        "private": "From its owner only.",
    }
    privacy = {
        "public": f"Public, on the word of its {source['vouched_by']}: recordings have their own names and paths here.",
        "private": "Private: recordings have neutral ids here, without names and paths.",
    }
    redistribution = {
        "yes": "Allowed.",
        "same-licence": "Allowed under the same licence.",
        "no": "Not allowed.",
        "unknown": "Not known.",
    }
    licence_status = {
        "verified": "read at the provider",
        "third-party": "as third parties report it",
        "unverified": "unverified",
    }
    status = str(source["licence_status"])
    facts = [
        ("Provider", source["provider"]),
        ("Year", source["year"]),
        ("Citation", source["citation"]),
        ("Licence", f"{source['licence']} ({licence_status.get(status, status)})"),
        ("Redistribution", redistribution.get(str(source["redistribution"]), source["redistribution"])),
        ("How to get it", access.get(str(source["access"]), source["access"])),
        ("Privacy", privacy.get(str(source["privacy"]), source["privacy"])),
        ("Modality and organ", f"{_words(source['modality'])}; {_words(source['organ'])}"),
    ]
    return [(name, str(value) if value else "Not given.") for name, value in facts]


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def _charts(stats: Stats) -> list[Chart]:
    return [
        chart(
            stats.clip_seconds,
            title="Clip length",
            unit="s",
            note="Frames of the clip divided by its rate.",
        ),
        chart(
            stats.brightness,
            title="Brightness",
            unit="",
            note="Mean luma over the keyframes, from 0 (black) to 255 (white).",
        ),
        chart(
            stats.sharpness,
            title="Sharpness",
            unit="",
            note="Variance of the Laplacian of luma over the keyframes. Low is blurred or plain, high is fine detail or"
            " noise. Each bin is twice as wide as the one before.",
        ),
    ]


def _by_name(records: list[dict[str, str | int]]) -> dict[str, list[dict[str, str | int]]]:
    groups: dict[str, list[dict[str, str | int]]] = {}
    for record in records:
        groups.setdefault(str(record["name"]), []).append(record)
    return groups


def _exclusions(corpus: Corpus, stats: Stats) -> list[dict[str, Any]]:
    """One entry per reason that occurs, the most frequent first, with its rows in their order."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in corpus.table("excluded").to_pylist():
        rows.setdefault(row["reason"], []).append(row)
    groups = []
    for record in stats.reasons.records():
        reason = str(record["reason"])
        groups.append(
            record
            | {
                "words": _words(reason).capitalize(),
                "sentence": _sentence(reason),
                "rows": rows[reason][:MOST_ROWS],
                "more": max(0, len(rows[reason]) - MOST_ROWS),
            }
        )
    return sorted(groups, key=lambda group: (-int(group["exclusions"]), str(group["reason"])))


def _sentence(reason: str) -> str:
    known = reason in list(Reason)
    return REASON_TEXT[Reason(reason)] if known else "A reason of another version of endocorpus."


def _made(descriptor: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("endocorpus", str(descriptor["endocorpus"])),
        ("Schema", str(descriptor["schema_version"])),
        ("Encoder", str(descriptor["encoder"])),
        ("Configuration digest (xxh3-128)", str(descriptor["config_digest"])),
    ]


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """``{"encode": {"crf": 23}}`` as ``encode.crf`` and ``23``."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value)
