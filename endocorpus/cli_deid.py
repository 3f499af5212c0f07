"""Commands about de-identification."""

from __future__ import annotations

import click

from endocorpus.console import Commands


@click.group(cls=Commands)
def deid() -> None:
    """Keys of pseudonyms and signatures, and the attestation of a corpus."""
