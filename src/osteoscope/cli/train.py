"""``osteoscope train``: cross-validate a network on a cohort, make a bundle and a report."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from osteoscope.cli.cohort import Accept, Because, accepted_pairs
from osteoscope.cli.terminal import INTERRUPTED, log, study_lines, summary
from osteoscope.cli.watching import watching

if TYPE_CHECKING:
    from osteoscope.config import Covariate


class CovariateName(StrEnum):
    """What else the network can be told; ``none``: nothing."""

    NONE = "none"
    AGE = "age"
    SEX = "sex"
    SITE = "site"
    LEVEL = "level"


def train(
    cohort: Annotated[Path, typer.Argument(help="Folder of a cohort.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; one that was stopped goes on.")],
    preset: Annotated[
        Literal["quick", "standard", "full"] | None,
        typer.Option(
            help="quick: to see that all works. standard: for results, the default. full: for a paper, with a GPU."
        ),
    ] = None,
    network: Annotated[
        Literal["optimised", "plain", "matched"] | None,
        typer.Option(
            help="optimised, the default: with multi-scale maps and self-attention. plain: the DenseNet alone. "
            "matched: plain, with as many parameters as the optimised."
        ),
    ] = None,
    roi: Annotated[
        Literal["none", "box", "outline"] | None,
        typer.Option(
            help="What is read of a radiograph. none, the default: all of it, and then, where lesions are annotated to "
            "learn from, all parts of it closely and the regions in which the network finds one. box, outline: the "
            "square round a lesion that a person has marked, in prediction too."
        ),
    ] = None,
    covariate: Annotated[
        list[CovariateName] | None,
        typer.Option(
            help="What else the network is told; repeat it. By default what is recorded of nearly all patients of each "
            "class; none: the images alone."
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None, typer.Option(help="Another finished run on the same patients to compare with; repeat it.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**31 - 1,
            help="Of the folds and all that is drawn in them; 0 if left out. What is learnt from auxiliary images has "
            "a seed of its own.",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, max=50, help="Instead of the preset's; by sites or looks there is one for each of them."),
    ] = None,
    split: Annotated[
        Literal["patients", "sites", "looks"] | None,
        typer.Option(
            help="What a fold leaves out: patients, the default; or a whole body site, or all pictures of one look, as "
            "the nearest thing to a centre never seen."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Local file of ImageNet or RadImageNet DenseNet weights to start from (.safetensors, .pth)."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="All settings from a TOML file, such as a run's config.toml; no preset then.")
    ] = None,
    accept: Accept = None,
    because: Because = None,
    images: Annotated[Path | None, typer.Option(help="Where the cohort's images lie, if they have moved.")] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of the processor. Left out: all. As many folds, up to eight, are fitted beside each other, as far as "
            "there are 4 GiB of memory for each, and 12 of a GPU's. A run that learns from auxiliary images, or on a "
            "GPU, goes on with the same.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one machine-readable summary.")] = False,
) -> None:
    """Cross-validate a network on a cohort, and make a bundle and a report.

    The cohort is audited first; a finding that makes the result a lie stops unless it is accepted with a reason.
    """
    from osteoscope import workflow

    accepted = accepted_pairs(accept, because)
    settings = workflow.training_config(
        cohort,
        preset=preset,
        network=network,
        roi=roi,
        covariates=_told(covariate),
        seed=seed,
        weights=weights if config is None else None,
        folds=folds,
        split=split,
        file=config,
        images=images,
    )
    try:
        with watching() as watcher:
            study = workflow.train(
                cohort,
                output,
                config=settings,
                watcher=watcher,
                weights=weights,
                beside=beside or (),
                accept=accepted,
                threads=threads,
                images=images,
            )
    except KeyboardInterrupt:
        log("interrupted; the same command goes on where it stood")
        raise typer.Exit(INTERRUPTED) from None
    value = {"run": str(study.folder), "report": str(study.report), "metrics": study.metrics}
    lines = [*study_lines(study.metrics), f"Report: {study.report}", f"Bundle: {study.folder / 'bundle'}"]
    summary(value, lines, as_json=json)


def _told(names: list[CovariateName] | None) -> list[Covariate] | None:
    """Take what the network is told; None where that is left to the cohort."""
    if names is None:
        return None
    once = list(dict.fromkeys(names))
    told = [cast("Covariate", name.value) for name in once if name is not CovariateName.NONE]
    if told and len(told) < len(once):
        raise typer.BadParameter("none cannot be named beside others", param_hint="--covariate")
    return told
