"""Commands about a finished corpus: what it holds, whether it is whole, its pages, its attestation in plain words."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from endocorpus.console import echo_json, echo_table, json_option
from endocorpus.errors import DataError, UsageError
from endocorpus.report.text import count

FOLDER = click.Path(file_okay=False, path_type=Path)


def _public_key(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001
    if value is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise UsageError("--signer: a public key has 64 hex digits; `endocorpus deid new-signing-key` prints it")
    return value.lower() if value else value


signer_option = click.option(
    "--signer",
    metavar="HEX",
    callback=_public_key,
    help="Public key that must have signed the attestation, as the site gave it by another way.",
)

workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default="one per core",
    help="Processes that work at the same time.",
)


@click.command()
@click.argument("corpus_folder", metavar="CORPUS", type=FOLDER)
@click.option("--fast", is_flag=True, help="Check every byte, but do not decode the clips.")
@signer_option
@workers_option
@json_option
def verify(corpus_folder: Path, fast: bool, signer: str | None, workers: int, as_json: bool) -> None:
    """Re-open everything: tables, shards, every clip, the attestation. Exit code 1 names what is damaged."""
    import dataclasses

    from endocorpus.corpus.manifest import named_corpus
    from endocorpus.progress import shown_clips
    from endocorpus.release import standing
    from endocorpus.verify import verify as verify_corpus

    corpus = named_corpus(corpus_folder)
    with shown_clips(corpus.descriptor["counts"]["clips"]) as progress:
        outcome = verify_corpus(corpus, decode=not fast, workers=workers, signer=signer, progress=progress)
    if as_json:
        echo_json(dataclasses.asdict(outcome) | {"released": standing(corpus).released})
    else:
        for problem in outcome.problems:
            click.echo(f"{corpus_folder}/{problem.where}: {problem.what}")
        click.echo(
            f"{count(outcome.shards, 'shard')}, {count(outcome.clips, 'clip')}, {outcome.bytes:,} bytes: "
            + (count(len(outcome.problems), "problem") if outcome.problems else "everything is as it was committed")
        )
        click.echo(f"released: {standing(corpus).sentence}")
    if outcome.problems:
        raise DataError(f"{corpus_folder}: damaged; `endocorpus build` repairs it from the raw files")


@click.command()
@click.argument("corpus_folder", metavar="CORPUS", type=FOLDER)
@json_option
def info(corpus_folder: Path, as_json: bool) -> None:
    """Show what a finished corpus holds: source, licence, settings, sizes, rates, labels, and what was left out."""
    from endocorpus.corpus.manifest import named_corpus
    from endocorpus.summary import facts, headline

    corpus = named_corpus(corpus_folder)
    if as_json:
        echo_json(dict(corpus.descriptor))
        return
    click.echo(headline(corpus))
    echo_table("", ("", ""), facts(corpus))
    echo_exclusions(corpus.table("excluded").to_pylist())


@click.command()
@click.argument("corpus_folder", metavar="CORPUS", type=FOLDER)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write a copy of the page there.")
@json_option
def report(corpus_folder: Path, out: Path | None, as_json: bool) -> None:
    """Say where the report page of a corpus is, write it elsewhere, or print its figures with --json."""
    from endocorpus.corpus.manifest import REPORT, named_corpus, refuse_inside_corpus
    from endocorpus.report.page import write_report
    from endocorpus.report.stats import compute

    corpus = named_corpus(corpus_folder)
    if as_json:
        echo_json(compute(corpus).to_json())
        return
    if out is None:
        click.echo(corpus.root / REPORT)
        return
    refuse_inside_corpus(out)
    try:
        write_report(corpus, out)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from None
    click.echo(f"report written to {out}")


@click.command()
@click.argument("corpus_folder", metavar="CORPUS", type=FOLDER)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The page to write, outside CORPUS."
)
@click.option("--seed", type=click.IntRange(0, 2**53), default=0, show_default=True, help="Draws the sample.")
@click.option("--sample", type=click.IntRange(1), help="How many clips to draw at random. Default: 299.")
def review(corpus_folder: Path, out: Path, seed: int, sample: int | None) -> None:
    """Write the page on which a person looks at the clips of a corpus and accepts or rejects each.

    The most doubtful tenth is shown first, then a random sample. The page is one file for a browser, needs no network,
    and can be read by you alone. Its decisions are read back by `endocorpus build --decisions`.
    """
    from endocorpus.corpus.manifest import named_corpus
    from endocorpus.deid.evidence import masks_of
    from endocorpus.deid.review import SAMPLE, review_page
    from endocorpus.deid.signoff import clean_sentence

    corpus = named_corpus(corpus_folder)
    try:
        plan = review_page(corpus, out, masks_of(corpus), seed=seed, sample=sample or SAMPLE)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from None
    shown, worst = count(len(plan.order), "clip"), len(plan.worst)
    click.echo(f"{out}: {shown} of {plan.num_clips:,} to decide on, {worst:,} of them the most doubtful")
    click.echo(f"if none is rejected: {clean_sentence(plan)}")
    click.echo("then: the same `endocorpus build` again, with --decisions FILE and --signing-key FILE")


@click.command("report")
@click.argument("corpus_folder", metavar="CORPUS", type=FOLDER)
@signer_option
@json_option
def attested(corpus_folder: Path, signer: str | None, as_json: bool) -> None:
    """Print what a corpus's attestation says, in plain words, for whoever answers for privacy.

    What is still open comes first. Exit code 0 says that the page is true, not that the corpus is released: 1 means
    that there is no attestation, that it was changed, is about other clips, or is of another key than --signer.
    `endocorpus verify` also holds every clip against it.
    """
    from endocorpus.corpus.manifest import named_corpus
    from endocorpus.deid.attest import open_points
    from endocorpus.deid.describe import load_attestation
    from endocorpus.deid.statement import statement

    found = load_attestation(named_corpus(corpus_folder), signer)
    if as_json:
        said: dict[str, Any] = {"open": open_points(found), "key_is_known": signer is not None}
        echo_json(said | found.model_dump(mode="json"))
    else:
        click.echo(statement(found, key_is_known=signer is not None), nl=False)


def place_among_excluded(exclusion: dict[str, Any]) -> tuple[str, str]:
    """The order of `excluded.parquet`, for whoever lists them."""
    return str(exclusion["subject"]), str(exclusion["reason"])


def echo_exclusions(exclusions: list[dict[str, Any]], most: int = 20) -> None:
    if exclusions:
        exclusions = sorted(exclusions, key=place_among_excluded)
        rows = [(e["reason"], e["subject"], e["detail"]) for e in exclusions[:most]]
        more = f", the first {most}" if len(exclusions) > most else ""
        echo_table(f"{count(len(exclusions), 'exclusion')}{more}", ("reason", "what", "detail"), rows)
