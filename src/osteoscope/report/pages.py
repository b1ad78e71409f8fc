"""What both kinds of page share: the templates, their filters, and pictures as part of the page."""

from __future__ import annotations

import base64
import functools
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from osteoscope.report.content import PHANTOM_BANNER
from osteoscope.report.figures import PALETTE
from osteoscope.report.wording import (
    DASH,
    count_text,
    estimate_text,
    has_interval,
    interval_text,
    is_defined,
    note_text,
    p_value_text,
    setting_text,
    share_text,
    value_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def render(template: str, **values: object) -> str:
    """Fill a template; every value is escaped but those that are `Markup`.

    Parameters
    ----------
    template
        File name in ``templates``.
    values
        What the template names; a name that is missing raises.
    """
    return _environment().get_template(template).render(**values)


def rendered_in_parts(template: str, **values: object) -> Iterator[str]:
    """Fill a template as `render` does, part by part: of an iterator the next is asked for when its place comes."""
    return _environment().get_template(template).generate(**values)


def data_uri(content: bytes, media_type: str) -> str:
    """Put a picture's bytes into an address that needs no other file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def inline(svg: str) -> Markup:
    """Let a plot of `figures`, whose texts are escaped, into a page as it is."""
    return Markup(svg)  # noqa: S704


def probability_bar(share: float, *, index: int, prior: float | None = None, height: int = 8) -> Markup:
    """Draw a probability as a bar from 0 to 1, with a mark where the prior is.

    Parameters
    ----------
    share, prior
        0..1.
    index
        The class's place, which gives the colour.
    height
        In pixels; the width is that of its place in the page.
    """
    mark = (
        f'<path class="prior" d="M{100 * prior:.2f} 0V{height}" vector-effect="non-scaling-stroke"/>'
        if prior is not None
        else ""
    )
    return Markup(  # noqa: S704  numbers and colours of our own
        f'<svg class="bar" viewBox="0 0 100 {height}" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="{height}"/>'
        f'<rect width="{100 * share:.2f}" height="{height}" fill="{PALETTE[index % len(PALETTE)]}"/>{mark}</svg>'
    )


def listed(words: Sequence[str], *, most: int = 8) -> str:
    """Join words, and count those beyond `most`."""
    rest = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + rest


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("osteoscope.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        bar=probability_bar,
        count=count_text,
        estimate=estimate_text,
        interval=interval_text,
        listed=listed,
        note=note_text,
        p_value=p_value_text,
        setting=setting_text,
        share=share_text,
        value=value_text,
    )
    environment.tests.update(defined_figure=is_defined, with_interval=has_interval)
    environment.globals.update(DASH=DASH, PALETTE=PALETTE, PHANTOM_BANNER=PHANTOM_BANNER)
    return environment
