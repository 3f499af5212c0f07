"""Commands that measure this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from endocorpus.console import echo_json, echo_table, json_option


@click.group()
def bench() -> None:
    """Measure this machine."""


@bench.command()
@click.option(
    "--corpus",
    "corpora",
    type=click.Path(file_okay=False, path_type=Path),
    multiple=True,
    required=True,
    help="Folder of a corpus; may be given several times.",
)
@click.option("--config", "config_name", default="endofm", show_default=True, help="A recipe or a TOML file.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Such as run.batch_size=8.")
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True, help="Decoding processes.")
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Batches of each kind.")
@click.option("--step-seconds", type=click.FloatRange(0), help="Tell the wait for data if a step takes so long.")
@json_option
def loader(
    corpora: tuple[Path, ...],
    config_name: str,
    overrides: tuple[str, ...],
    workers: int,
    steps: int,
    step_seconds: float | None,
    as_json: bool,
) -> None:
    """Say how many clips a second one core makes ready for training, and what they weigh."""
    from endofm.bench import time_loader
    from endofm.config import load_config

    config = load_config(config_name, overrides)
    speed = time_loader(corpora, config, steps=steps, workers=workers, step_seconds=step_seconds)
    if as_json:
        echo_json(dataclasses.asdict(speed))
        return
    rows = [
        ("samples per second and core", f"{speed.samples_per_core_second:.1f}"),
        ("CPU of a sample", f"{speed.milliseconds:.1f} ms"),
        ("to the device for each clip", f"{speed.megabytes:.2f} MB"),
    ]
    if speed.samples_per_second is not None:
        rows.append((f"samples per second from {workers} processes", f"{speed.samples_per_second:.1f}"))
        rows.append(("CPU of the trainer for each", f"{speed.trainer_milliseconds:.1f} ms"))
    if speed.wait_share is not None:
        rows.append((f"waiting for data at {speed.step_seconds:g} s a step", f"{speed.wait_share:.1%}"))
    echo_table(f"{speed.clips:,} clips on {speed.hardware}", ("", ""), rows)
