"""Commands about de-identification: its secrets, and the options by which other commands are given them."""

from __future__ import annotations

from pathlib import Path

import click

from endocorpus.console import Commands

SECRET = click.Path(dir_okay=False, path_type=Path)
secret_argument = click.argument("file", type=SECRET)


@click.group(cls=Commands)
def deid() -> None:
    """Keys of pseudonyms and signatures, and the attestation of a corpus."""


@deid.command("new-signing-key")
@secret_argument
def new_signing_key(file: Path) -> None:
    """Draw a key that signs reviews and attestations, keep it in FILE, and print its public half.

    Give the public half to those who will check signatures, by a way of its own.
    """
    from endocorpus.deid.chain import public_key
    from endocorpus.deid.keys import new_signing_key as make

    click.echo(f"{file}: new signing key; its public half is {public_key(make(file))}")
