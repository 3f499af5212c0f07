"""The command line: a thin skin, one library call per command; heavy imports happen inside the commands."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from endocorpus import __version__
from endocorpus.cli_corpus import (
    FOLDER,
    attested,
    echo_exclusions,
    info,
    place_among_excluded,
    report,
    review,
    verify,
    workers_option,
)
from endocorpus.cli_deid import deid, secret_options
from endocorpus.cli_facts import fetch, mix, sources, splits
from endocorpus.console import Commands, echo_json, echo_table, json_option
from endocorpus.errors import DataError, UsageError
from endocorpus.places import place_of, raw_root
from endocorpus.report.text import count

if TYPE_CHECKING:
    from endocorpus.config import BuildConfig
    from endocorpus.deid.private import Secrets
    from endocorpus.expect import Compared
    from endocorpus.scan import Scan
    from endocorpus.sources.layout import Source

FILE = click.Path(dir_okay=False, path_type=Path)
source_option = click.option("--source", "source_name", required=True, metavar="NAME", help="See `endocorpus sources`.")
root_option = click.option(
    "--root",
    type=FOLDER,
    help="Folder of the raw files. Default: raw/NAME, or below $ENDOCORPUS_RAW, or $ENDOCORPUS_RAW itself.",
)
head_option = click.option(
    "--head", type=FILE, help="A site's own detector of what is outside the body; see `endocorpus deid calibrate`."
)
privacy_option = click.option(
    "--privacy",
    type=click.Choice(["public", "private"]),
    help="Only for the source 'folder': private (the default) means that pseudonyms stand for its names, which take "
    "--key or --vault, and that a recording in doubt is kept back.",
)
config_option = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file of settings; see `endocorpus config`."
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Such as segment.clip_seconds=4."
)
rate_option = click.option(
    "--rate", metavar="FPS", help="Only for the source 'folder': frames per second of folders of images. Default: 25."
)
out_option = click.option("--out", type=FOLDER, help="Folder of the corpus. Default: corpora/NAME.")
name_option = click.option(
    "--name",
    "corpus_name",
    help="Name of the corpus, which starts its ids and its shards' names. Default: the name that the corpus in --out "
    "has, or else the source's, or for the source 'folder' that of --out.",
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="endocorpus")
def main() -> None:
    """From raw endoscopy video to a sharded, verified, described corpus.

    Exit codes: 0 done, 1 a problem with data, 2 a problem with the command.
    """


main.add_command(sources)


@main.command()
@source_option
@click.option("--out", type=FOLDER, required=True, help="Folder for the raw tree; the truth goes beside it.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed renders the same bytes.")
@click.option("--recordings", type=click.IntRange(1), help="How many videos.")
@click.option("--seconds", type=click.FloatRange(0.1, 3600), help="Length of each.")
def phantom(source_name: str, out: Path, seed: int, recordings: int | None, seconds: float | None) -> None:
    """Render a stand-in for a source: endoscopy-like video in the layout of the real data, with exact ground truth."""
    from endocorpus.phantom import render_source
    from endocorpus.progress import shown_frames
    from endocorpus.sources import load_source

    load_source(source_name)  # refuses a name that is none, and knows which one is near
    try:
        with shown_frames() as on_frame:
            tree = render_source(source_name, out, seed=seed, recordings=recordings, seconds=seconds, on_frame=on_frame)
    except (ValueError, FileExistsError) as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from None
    click.echo(f"rendered {count(len(tree.recordings), 'recording')} into {tree.root}, the truth into {tree.truth}")


main.add_command(fetch)


@main.command()
@source_option
@root_option
@privacy_option
@secret_options
@click.option("--strict", is_flag=True, help="Exit with 1 when a count differs from what the source should hold.")
@json_option
def scan(
    source_name: str,
    root: Path | None,
    privacy: Literal["public", "private"] | None,
    secrets: Secrets,
    strict: bool,
    as_json: bool,
) -> None:
    """Show what lies below a root, what is missing and what does not match.

    Opens no media and writes nothing; only a --vault keeps the ids that are drawn.
    """
    import dataclasses

    from endocorpus.deid.private import names_of
    from endocorpus.expect import compare, refuse_loose
    from endocorpus.scan import scan as scan_files
    from endocorpus.sources import load_source

    source = load_source(source_name, privacy)
    root = raw_root(source, root)
    with names_of(source, secrets, source.name, [root]) as names:
        found = scan_files(source, root, names=names)
    compared = compare(source, found)
    if as_json:
        echo_json(
            {
                "files": found.num_files,
                "sidecars": found.sidecars,
                "recordings": [
                    {
                        "id": r.recording_id,
                        "subject": r.subject,
                        "case": r.case_id,
                        "leak_group": r.leak_group,
                        "files": len(r.media.paths),
                        "label_files": len(r.label_files),
                    }
                    for r in found.recordings
                ],
                "exclusions": [_exclusion(e) for e in found.exclusions],
                "expected": [dataclasses.asdict(row) for row in compared],
                "unverified": list(source.unverified),
            }
        )
    else:
        _echo_scan(source, found, compared)
    if strict:
        refuse_loose(source, found)


def _echo_scan(source: Source, found: Scan, compared: tuple[Compared, ...], most: int = 40) -> None:
    rows = [(r.recording_id, r.subject, len(r.media.paths), len(r.label_files)) for r in found.recordings]
    beside = "".join(f", {count(number, what)}" for what, number in found.sidecars.items())
    shown = f"; the first {most}, all with --json" if len(rows) > most else ""
    title = f"{count(len(rows), 'recording')} in {count(found.num_files, 'file')}{beside}{shown}"
    echo_table(title, ("id", "what", "files", "labels"), rows[:most])
    echo_exclusions([_exclusion(e) for e in found.exclusions])
    if compared:
        header = ("what", "expected", "status", "found", "verdict")
        counts = [
            (c.what, f"{c.expected:,}", c.status, "" if c.found is None else f"{c.found:,}", c.verdict)
            for c in compared
        ]
        echo_table("What the source should hold", header, counts)
    if source.privacy == "private":
        click.echo("private: pseudonyms stand for all names; with another key, vault or site they are others")
    for line in source.unverified:
        click.echo(f"assumed, not verified: {line}")


@main.command()
@source_option
@root_option
@out_option
@name_option
@privacy_option
@secret_options
@head_option
@rate_option
@config_option
@set_option
@workers_option
@json_option
def plan(
    source_name: str,
    root: Path | None,
    out: Path | None,
    corpus_name: str | None,
    privacy: Literal["public", "private"] | None,
    secrets: Secrets,
    head: Path | None,
    rate: str | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
    workers: int,
    as_json: bool,
) -> None:
    """Show what a build of the same options would do: recordings, clips, what is hidden and in doubt, exclusions.

    Writes nothing; only a --vault keeps the ids that are drawn.
    """
    from endocorpus.build import BuildWatcher, plan_all, scan_filled
    from endocorpus.deid.calibrating import load_head
    from endocorpus.deid.private import names_of
    from endocorpus.release import rejected_recordings
    from endocorpus.sources import load_source

    source = load_source(source_name, privacy, rate)
    config = _config(config_file, overrides, source.defaults)
    root, (out, name) = raw_root(source, root), place_of(source, out, corpus_name)
    own = load_head(head) if head else None
    with names_of(source, secrets, name, [root, out]) as names:
        scanned, rejected = scan_filled(source, root, name, names), rejected_recordings(out)
        plans, found = plan_all(scanned, source, root, config, workers, BuildWatcher(), rejected, head=own)
    exclusions = sorted(map(_exclusion, found), key=place_among_excluded)
    rows = [
        {
            "recording": p.recording.recording_id,
            "frames": p.facts.num_frames,
            "rate": f"{float(p.examined_rate):g}",
            "nominal_rate": f"{float(p.facts.rate):g}",
            "varies": p.facts.variable_rate,
            "clips": len(p.clips),
            "size": f"{p.clips[0].width}x{p.clips[0].height}",
            "crop": p.clearance.crop,
            "removed": dict(p.clearance.removed),
            "doubts": p.clearance.doubts,
        }
        for p in plans
    ]
    if as_json:
        echo_json({"recordings": rows, "exclusions": exclusions})
        return
    cells = [
        (r["recording"], r["frames"], r["rate"], _of_rate(r), r["clips"], r["size"], ", ".join(p.clearance.doubts))
        for r, p in zip(rows, plans, strict=True)
    ]
    header = ("recording", "frames", "rate", "", "clips", "size", "doubts")
    echo_table(f"{count(sum(len(p.clips) for p in plans), 'clip')} planned", header, cells)
    echo_exclusions(exclusions)


@main.command()
@source_option
@root_option
@out_option
@name_option
@click.option(
    "--strict", is_flag=True, help="Stop when counts differ from what the source should hold, or a label has no code."
)
@click.option("--shrink", is_flag=True, help="More than half of the recordings that the corpus holds may go.")
@click.option("--decisions", type=FILE, help="File that the page of `endocorpus review` saved: it is read and signed.")
@click.option("--signing-key", type=FILE, help="Key that signs decisions and the attestation; see `endocorpus deid`.")
@privacy_option
@secret_options
@head_option
@rate_option
@config_option
@set_option
@workers_option
def build(
    source_name: str,
    root: Path | None,
    out: Path | None,
    corpus_name: str | None,
    strict: bool,
    shrink: bool,
    decisions: Path | None,
    signing_key: Path | None,
    privacy: Literal["public", "private"] | None,
    secrets: Secrets,
    head: Path | None,
    rate: str | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
    workers: int,
) -> None:
    """Build a corpus, continue a build that was interrupted, or bring a corpus up to date: the same command.

    Recordings are cut into clips of 5 seconds, scaled down to 256 pixels on the short side, and encoded as H.264
    without sound. The settings of that are listed by `endocorpus config`. With --signing-key the corpus is attested;
    a private one is released when somebody has reviewed it and its --decisions were read.
    """
    from endocorpus.build import build as build_corpus
    from endocorpus.deid.calibrating import load_head
    from endocorpus.deid.keys import read_signing_key
    from endocorpus.deid.private import names_of
    from endocorpus.progress import ShownProgress
    from endocorpus.release import told
    from endocorpus.sources import load_source
    from endocorpus.summary import headline, left_out, repeats, why_empty

    source = load_source(source_name, privacy, rate)
    config = _config(config_file, overrides, source.defaults)
    root, (out, name) = raw_root(source, root), place_of(source, out, corpus_name)
    own = load_head(head) if head else None
    secret = read_signing_key(signing_key, [root, out]) if signing_key else None
    for line in source.unverified:
        click.echo(f"assumed, not verified: {line}", err=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's way to say Ctrl-C
    with names_of(source, secrets, name, [root, out]) as names, ShownProgress() as shown:
        corpus = build_corpus(
            source,
            root,
            out,
            config,
            name=name,
            workers=workers,
            shrink=shrink,
            strict=strict,
            names=names,
            watcher=shown,
            decisions=decisions,
            signing_key=secret,
            head=own,
        )
    click.echo("\n".join([headline(corpus), *told(corpus)]))
    if copied := repeats(corpus.descriptor["counts"]["identical_recordings"]):
        click.echo(f"{copied}, byte for byte; they share a leak group")
    echo_exclusions(corpus.table("excluded").to_pylist())
    click.echo("".join(f"{line}\n" for line in left_out(corpus, shown.gone)), nl=False)
    if not corpus.descriptor["counts"]["clips"]:
        raise DataError(why_empty(corpus))


main.add_command(verify)
main.add_command(info)
main.add_command(report)
main.add_command(review)
deid.add_command(attested)
main.add_command(deid)
main.add_command(splits)
main.add_command(mix)


@main.command()
@config_option
@set_option
@json_option
def config(config_file: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the settings of a build as TOML for --config, with the values that a file or --set gives them."""
    from endocorpus.settings import to_toml

    settings = _config(config_file, overrides)
    if as_json:
        echo_json(settings.model_dump(mode="json"))
    else:
        click.echo(to_toml(settings), nl=False)


def _of_rate(row: Mapping[str, Any]) -> str:
    remarks = ["varies"] if row["varies"] else []
    remarks += [f"nominally {row['nominal_rate']}"] if row["nominal_rate"] != row["rate"] else []
    return ", ".join(remarks)


def _config(
    path: Path | None, overrides: tuple[str, ...], defaults: Mapping[str, Mapping[str, Any]] | None = None
) -> BuildConfig:
    from endocorpus.config import BuildConfig
    from endocorpus.settings import load_settings

    return load_settings(BuildConfig, path, overrides, defaults=defaults or {})


def _exclusion(exclusion: Any) -> dict[str, Any]:
    from endocorpus.rows import excluded_row

    return excluded_row(exclusion)
