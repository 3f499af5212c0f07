"""Commands about the reviewed facts: the sources and how to get them, splits, and mixtures for training."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from endocorpus.console import echo_json, echo_table, json_option
from endocorpus.errors import DataError, UsageError
from endocorpus.report.text import count, number, size

if TYPE_CHECKING:
    from endocorpus.mix import Chosen
    from endocorpus.sides import Divided

FOLDER = click.Path(file_okay=False, path_type=Path)
out_option = click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The Parquet file to write.")


@click.command()
@click.argument("name", required=False)
@json_option
def sources(name: str | None, as_json: bool) -> None:
    """List the sources, or show one: what it is good for, licence, access, size, counts, known traps."""
    from endocorpus.sources import SOURCES, load_source, source_facts

    if name is not None:
        _echo_facts(name, source_facts(load_source(name)), as_json)
        return
    found = [load_source(each) for each in SOURCES]
    if as_json:
        echo_json([source_facts(source) for source in found])
        return
    header = ("name", "recordings", "access", "licence", "pass on", "good for")
    rows = [
        (
            source.name,
            " + ".join(
                f"{each.count:,}" for what, each in source.expected.items() if (each.of or what) == "recordings"
            ),
            source.access,
            source.licence + ("" if source.licence_status == "verified" else " ?"),
            source.redistribution,
            source.good_for,
        )
        for source in found
    ]
    echo_table("Sources; `endocorpus sources NAME` tells all about one; ? = nobody has verified it", header, rows)


@click.command()
@click.argument("source_name", metavar="SOURCE")
@click.option("--dest", type=FOLDER, help="Folder of the raw files. Default: raw/SOURCE.")
@click.option("--archives", type=FOLDER, help="Folder of archives that were downloaded by hand.")
@click.option("--only", multiple=True, metavar="NAME", help="This archive and no other; may be given several times.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@json_option
def fetch(
    source_name: str, dest: Path | None, archives: Path | None, only: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    """Download and unpack a source, where its provider lets anybody do so; where it takes a person, say the steps.

    Started again, it goes on where it was, or checks that all is there. The password of encrypted archives is read
    from the environment variable ENDOCORPUS_PASSWORD.
    """
    from dataclasses import asdict

    from endocorpus.fetch import fetch as fetch_all
    from endocorpus.fetch import plan_fetch, provider_of, steps, verdict, would_be
    from endocorpus.progress import shown_bytes
    from endocorpus.sources import SOURCES, load_source

    try:
        provider, dest = provider_of(source_name), dest or Path("raw") / source_name
    except UsageError:
        load_source(source_name)  # knows which name is near
        raise
    plan = plan_fetch(provider, dest, archives, only)
    if dry_run:
        outcomes = would_be(plan)
    else:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with shown_bytes() as watch:
            outcomes = fetch_all(plan, dest, watch=watch)
    told = steps(provider, outcomes)
    if as_json:
        echo_json({"source": source_name, "dest": dest, "archives": [asdict(o) for o in outcomes], "steps": told})
    else:
        notes = [planned.archive.note if dry_run else "" for planned in plan]
        rows = [
            (o.name, o.status, "" if o.bytes is None else size(o.bytes), o.files or "", _once(o.detail, note))
            for o, note in zip(outcomes, notes, strict=True)
        ]
        if rows:
            echo_table(str(dest), ("archive", "status", "size", "files", "detail"), rows)
        if dry_run and provider.access != "private":
            whole = load_source(source_name).size if source_name in SOURCES else ""  # facts may come before a module
            click.echo(f"size of all: {whole or 'not stated by the provider'}")
        click.echo("\n".join(told), nl=bool(told))
    if not dry_run:
        verdict(provider, outcomes)


def _once(*texts: str) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


@click.command()
@click.argument("name", required=False)
@click.option(
    "--corpus", "corpora", type=FOLDER, multiple=True, help="Apply the split to it; may be given several times."
)
@out_option
@json_option
def splits(name: str | None, corpora: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """List the splits, show one, or apply it to corpora: what stands on each side, and what on more than one.

    Exit code 1 says that a leak group stands on more than one side although the split is not known to leak. --out
    writes which clip stands on which side.
    """
    from endocorpus.corpus.splits import SPLITS, load_split

    if out and not corpora:
        raise UsageError("--out needs the clips of a --corpus")
    if name is None:
        if corpora:
            raise UsageError("which split? say `endocorpus splits NAME`; without --corpus they are listed")
        listed = {each: load_split(each) for each in SPLITS}
        facts = [{"name": each} | split.model_dump(mode="json") for each, split in listed.items()]
        if as_json:
            echo_json(facts)
        else:
            header = ("name", "leaky", "what it is")
            rows = [(each, _plain(split.leaky), split.title) for each, split in listed.items()]
            echo_table(
                "Splits; `endocorpus splits NAME` tells all about one; leaky = tests on training data", header, rows
            )
        return
    split = load_split(name)
    if corpora:
        from endocorpus.sides import divide

        _echo_divided(name, divide(split, corpora), out, as_json)
    else:
        _echo_facts(name, {"name": name} | split.model_dump(mode="json"), as_json)


def _echo_divided(name: str, divided: Divided, out: Path | None, as_json: bool) -> None:
    from endocorpus.corpus.manifest import parquet_bytes, rows_table
    from endocorpus.corpus.schema import SIDES

    told: dict[str, Any] = {
        "split": name,
        "title": divided.split.title,
        "leaky": divided.split.leaky,
        "sides": {side: divided.on(side) for side in divided.names()},
        "no_side": divided.on(None) | {"names": list(divided.left_out())},
        "leaks": [{"leak_group": leak.leak_group, "units": dict(leak.units)} for leak in divided.leaks],
    }
    if as_json:
        echo_json(told)
    else:
        sums = {**told["sides"], "none": told["no_side"]}
        columns = ("units", "recordings", "clips", "frames")
        rows = [(side, *(number(found[column]) for column in columns)) for side, found in sums.items()]
        echo_table(name, ("side", *columns), rows)
        _echo_leaks(divided)
    if divided.leaks and not divided.split.leaky:
        raise DataError(
            f"split {name!r}: {count(len(divided.leaks), 'leak group')} on more than one side, such as "
            f"{divided.leaks[0].leak_group!r}; use a split by leak group for this data"
        )
    if out:
        _write(out, parquet_bytes(rows_table(SIDES, divided.clip_rows())))


def _echo_leaks(divided: Divided) -> None:
    if divided.leaks:
        rows = [
            (leak.leak_group, "; ".join(f"{side}: {', '.join(units)}" for side, units in leak.units.items()))
            for leak in divided.leaks[:20]
        ]
        known = "published so" if divided.split.leaky else "nobody said that this split leaks"
        echo_table(
            f"{count(len(divided.leaks), 'leak group')} on more than one side ({known})", ("group", "units"), rows
        )


@click.command()
@click.argument("name")
@click.option(
    "--corpus", "corpora", type=FOLDER, multiple=True, required=True, help="To choose from; may be given several times."
)
@click.option(
    "--without-leaks",
    "without",
    multiple=True,
    metavar="SOURCE_OR_SPLIT",
    help="Leave out what shows its recordings: those of a source, of the test side of a split, or of SPLIT:SIDE.",
)
@click.option(
    "--against", type=FOLDER, multiple=True, help="A corpus of what --without-leaks names, to know its cases by."
)
@click.option(
    "--drop-overlapping-sets",
    "drop_overlaps",
    is_flag=True,
    help="Also whole sets that may share unknown cases with it.",
)
@out_option
@json_option
def mix(
    name: str,
    corpora: tuple[Path, ...],
    without: tuple[str, ...],
    against: tuple[Path, ...],
    drop_overlaps: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Choose the clips of a mixture from corpora and set them beside the published numbers: endofm-pretrain, or a TOML
    file of your own.

    --out FILE.parquet writes the list of clips that `endofm pretrain --mix` trains on, and FILE.excluded.parquet, what
    was left out and why.
    """
    from endocorpus.corpus.manifest import parquet_bytes, rows_table
    from endocorpus.corpus.mixes import mix_bytes
    from endocorpus.corpus.schema import MIX_EXCLUDED
    from endocorpus.heldout import held_out
    from endocorpus.mix import choose, load_mix

    if out and out.suffix != ".parquet":
        raise UsageError(f"--out {out}: the name must end in .parquet")
    chosen = choose(
        load_mix(name), corpora, without=map(held_out, without), against=against, drop_overlaps=drop_overlaps
    )
    rows = chosen.clip_rows()
    _echo_mix(chosen, as_json, with_excluded=out is None)
    if not rows:
        raise DataError("no clip is left to train on; see what was left out and why")
    if out:
        asked = {
            "title": chosen.mix.title,
            "without_leaks": sorted(set(without)),
            "drop_overlapping_sets": drop_overlaps,
        }
        _write(out.with_suffix(".excluded.parquet"), parquet_bytes(rows_table(MIX_EXCLUDED, chosen.excluded_rows())))
        _write(out, mix_bytes(rows, asked))


def _echo_mix(chosen: Chosen, as_json: bool, *, with_excluded: bool) -> None:
    from endocorpus.mix import exclusion_report, row_report, tally

    rows, left_out = row_report(chosen), exclusion_report(chosen)
    kept = tally(choice for choice in chosen.choices if choice.reason is None)
    if as_json:
        published = {"clips": chosen.mix.paper_clips, "frames": chosen.mix.paper_frames}
        told = {"title": chosen.mix.title, "rows": rows, "kept": kept, "published": published, "left_out": left_out}
        excluded = {"excluded": chosen.excluded_rows()} if with_excluded else {}
        echo_json(told | {"warnings": chosen.warnings} | excluded)
        return
    echo_table(
        f"{chosen.mix.title}: {count(kept['clips'], 'clip')}, {count(kept['frames'], 'frame')}", *_mix_table(rows)
    )
    click.echo("found: in the given corpora, cut as the row says; kept: what no leak speaks against")
    notes = [(row["row"], row["note"]) for row in rows if row["note"]]
    echo_table("What to know about the rows" if notes else "", ("", ""), notes)
    if left_out:
        columns = ("reason", "source", "of", "kind", "certainty", "recordings", "clips", "evidence")
        echo_table("Left out", columns, [[_plain(entry[column]) for column in columns] for entry in left_out])
    for warning in chosen.warnings:
        click.echo(f"warning: {warning}", err=True)


def _mix_table(rows: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and cells: each number under what it counts."""
    sums = [(what, step) for what in ("clips", "frames") for step in ("found", "kept", "published")]
    header = ("row", *(f"{what}\n{step}" for what, step in sums), "published\nnumber is", "remark")
    cells = []
    for row in rows:
        values = [row[step][what] for what, step in sums]
        numbers = ["" if value is None else number(value) for value in values]
        cells.append([row["row"], *numbers, row["status"], row["remark"]])
    return header, cells


def _echo_facts(title: str, facts: Mapping[str, object], as_json: bool) -> None:
    if as_json:
        echo_json(facts)
    else:
        echo_table(title, ("fact", "value"), _fact_rows(facts))


def _fact_rows(facts: Mapping[str, object]) -> list[tuple[str, str]]:
    """One row per fact that there is; entries of a list have rows of their own."""
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        parts = value if isinstance(value, list) else [value]
        if isinstance(value, dict) and all(isinstance(inner, dict | list) for inner in value.values()):
            parts = [f"{name}: {_plain(inner)}" for name, inner in value.items() if inner]
        told = [part for part in map(_plain, parts) if part]
        rows += [("" if number else key.replace("_", " "), part) for number, part in enumerate(told)]
    return rows


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items() if inner not in (None, "", []))
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _write(path: Path, data: bytes) -> None:
    from endocorpus.corpus.files import atomic_file
    from endocorpus.corpus.manifest import refuse_inside_corpus

    refuse_inside_corpus(path)
    try:
        with atomic_file(path) as file:
            file.write(data)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    click.echo(f"written: {path}", err=True)
