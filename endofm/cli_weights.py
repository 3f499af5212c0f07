"""Commands about files of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from endocorpus.console import echo_json, echo_table, json_option

if TYPE_CHECKING:
    from endofm.convert import Description
    from endofm.models.weights import Which

FILE = click.Path(path_type=Path)
which_option = click.option(
    "--which",
    type=click.Choice(["teacher", "student"]),
    default="teacher",
    show_default=True,
    help="Of two networks in one file.",
)


@click.group()
def weights() -> None:
    """Look into files of weights, published or your own, and convert them."""


@weights.command()
@click.argument("file", type=FILE)
@which_option
@json_option
def inspect(file: Path, which: Which, as_json: bool) -> None:
    """Say what FILE is, and whether it can be loaded as a backbone; exit code 1 if it cannot."""
    from endofm.convert import inspect_weights

    description = inspect_weights(file, which=which)
    if as_json:
        echo_json(description.to_dict())
    else:
        _echo(description)
    raise SystemExit(0 if description.loads else 1)


@weights.command()
@click.argument("file", type=FILE)
@click.argument("out", type=FILE, metavar="OUT.safetensors")
@which_option
@click.option("--frames", type=click.IntRange(1), help="Length of the table of times. Default: as in FILE.")
def convert(file: Path, out: Path, which: Which, frames: int | None) -> None:
    """Write the backbone in FILE as safetensors, with its shape and where it comes from."""
    from endofm.convert import convert_weights

    written = convert_weights(file, out, which=which, num_frames=frames)
    click.echo(f"backbone written to {out}" if written else f"{out} holds these weights already")


def _echo(found: Description) -> None:
    arguments = found.trained.get("arguments", {})
    shown = {
        "is": found.known,
        "structure": found.structure,
        "format": f"{found.format}, {found.size:,} bytes, {found.tensors:,} tensors",
        "sha256": found.sha256,
        "loads": "yes" if found.loads else f"no: {found.why_not}",
        "networks": ", ".join(name or "one, by bare names" for name in found.networks),
        "backbone": _shape(found) if found.model else None,
        "head": "yes" if found.head else None,
        "comes from": _origin(found.provenance.get("source")),
        "began with": _origin(found.provenance.get("weights")),
        "changes": "; ".join(found.provenance.get("changes", ())),
        "trained": ", ".join(f"{key} {value}" for key, value in found.trained.items() if key != "arguments"),
        "arguments": ", ".join(f"{key} {value}" for key, value in sorted(arguments.items())),
        "withheld": f"{found.arguments_withheld} of the arguments, since they may name people or places"
        if found.arguments_withheld
        else None,
    }
    echo_table(found.file, ("", ""), [(key, value) for key, value in shown.items() if value])


def _origin(said: object) -> str:
    """What a file of ours says of the file that its weights, or those it began with, were taken from."""
    if not isinstance(said, Mapping):
        return ""
    words = {**said, **(said["source"] if isinstance(said.get("source"), Mapping) else {})}
    parts = [str(words[key]) for key in ("file", "structure", "which", "format", "sha256") if words.get(key)]
    return ", ".join(part for part in parts if part.isprintable())


def _shape(found: Description) -> str:
    assert found.model is not None
    source = found.provenance.get("source")
    dtype = f", stored as {source['dtype']}" if isinstance(source, dict) and "dtype" in source else ""
    kind, width = found.model["adapters"], found.model["adapter_width"]
    adapters = f", adapters {kind} of width {width}" if kind != "none" else ""
    return (
        f"{found.parameters:,} parameters; width {found.model['embed_dim']}, {found.model['depth']} blocks, "
        f"patches of {found.model['patch_size']}, images of {found.model['image_size']}, "
        f"{found.model['num_frames']} frames{adapters}{dtype}"
    )
