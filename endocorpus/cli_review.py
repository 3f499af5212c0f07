"""Commands for whoever looks at a corpus and signs for it: the review page, and the attestation in plain words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from endocorpus.console import echo_json, json_option
from endocorpus.errors import UsageError
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
