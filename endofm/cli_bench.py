"""Commands that measure this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from endocorpus.console import echo_json, echo_table, json_option
from endofm.cli_options import config_option, corpus_option, set_option


@click.group()
def bench() -> None:
    """Measure this machine."""


@bench.command()
@corpus_option
@config_option
@set_option
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True, help="Decoding processes.")
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Batches of each kind.")
@click.option("--step-seconds", type=float, help="Tell the wait for data if a step takes so long.")
@json_option
def loader(
    corpora: tuple[Path | str, ...],
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
