"""Commands about de-identification: its secrets, and the options by which other commands are given them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from endocorpus.console import Commands

SECRET = click.Path(dir_okay=False, path_type=Path)
secret_argument = click.argument("file", type=SECRET)


def secret_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options --key, --vault and --site, which reach the command as its argument `secrets`."""

    @wraps(command)
    def with_secrets(*args: Any, key: Path | None, vault: Path | None, site: str | None, **others: Any) -> None:
        from endocorpus.deid.private import Secrets

        command(*args, secrets=Secrets(key=key, vault=vault, site=site), **others)

    options = (
        click.option(
            "--key",
            type=SECRET,
            help="For private recordings: key of their pseudonyms, a file that `endocorpus deid new-key` made.",
        ),
        click.option(
            "--vault",
            type=SECRET,
            help="For private recordings: instead of a key, a table of random ids; made if it is not there.",
        ),
        click.option(
            "--site",
            metavar="NAME",
            help="For private recordings: where they come from; patients of one name at two sites are two. Default: "
            "the name of the corpus.",
        ),
    )
    for option in reversed(options):
        with_secrets = option(with_secrets)
    return with_secrets


@click.group(cls=Commands)
def deid() -> None:
    """Keys of pseudonyms and signatures, a head of one's own, and the attestation of a corpus."""


@deid.command("new-key")
@secret_argument
def new_key(file: Path) -> None:
    """Draw a key for pseudonyms of private recordings, and keep it in FILE, outside of every corpus and git tree.

    Whoever has it can tell which pseudonym a name has. Without it, later builds give other ids: keep a copy safe.
    """
    from endocorpus.deid.pseudonym import new_key as make

    click.echo(f"{file}: new key {make(file).kid}; keep it from others, and a copy of it safe")


@deid.command("destroy-key")
@secret_argument
@click.option("--kid", required=True, help="Number of the key, as `new-key` said it: the wrong one is soon destroyed.")
def destroy_key(file: Path, kid: str) -> None:
    """Overwrite and remove a key of pseudonyms: from then on nobody can tell what they stand for. Copies remain."""
    from endocorpus.deid.pseudonym import destroy_key as destroy
    from endocorpus.deid.pseudonym import read_key
    from endocorpus.errors import UsageError

    if read_key(file).kid != kid:
        raise UsageError(f"{file}: is not the key {kid}; nothing was destroyed")
    destroy(file)
    click.echo(f"{file}: the key {kid} is destroyed")


@deid.command("new-signing-key")
@secret_argument
def new_signing_key(file: Path) -> None:
    """Draw a key that signs reviews and attestations, keep it in FILE, and print its public half.

    Give the public half to those who will check signatures, by a way of its own.
    """
    from endocorpus.deid.chain import public_key
    from endocorpus.deid.keys import new_signing_key as make

    click.echo(f"{file}: new signing key; its public half is {public_key(make(file))}")


@deid.command("calibrate")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The head's file to write.")
@click.option(
    "--head",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Start from this one, not from the one that ships.",
)
def calibrate(folder: Path, out: Path, head: Path | None) -> None:
    """Fit the detector of frames outside the body on FOLDER/inside and FOLDER/outside, images of your site.

    Some 200 images from several recordings, cut to the endoscopic image, their names in the order of filming.
    A head that misses more outside frames than before, among those held out, is not written.
    """
    from endocorpus.deid.calibrating import calibrate_folders, load_head, told

    done = calibrate_folders(folder, out, start=load_head(head) if head else None)
    for line in told(done):
        click.echo(line)
