"""``osteoscope inspect``: say what would be read of files and folders, how, and why the rest is refused."""

from __future__ import annotations

import os
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from osteoscope.cli.terminal import staged, summary
from osteoscope.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from osteoscope.imaging.volume import Geometry
    from osteoscope.workflow.inspecting import InspectedImage, Inspection, RefusedFiles

_WIDTH_OF_A_LOG = 160
"""Columns of the tables where they are not printed on a terminal."""

_WIDEST = {"Used": 20, "What it is": 32, "Stored as": 32, "Code": 24, "Why": 44, "What to do": 32}
"""Columns that headings may take, so that enough is left for names."""

_LEAST_TILT = 0.1
"""Degrees from which a tilt is said."""

_MOST_NAMES = 4
"""How many files beside the images are named."""

_LONGEST_NAME = 24
"""Characters of a name that is shown whole among others of its folder."""

_MOST_FOLDERS = 8
"""Of how many folders the files of one refusal are named."""


def inspect(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, folders and zips, of any nesting.")],
    json: Annotated[bool, typer.Option("--json", help="Print one machine-readable document.")] = False,
) -> None:
    """Say of each series and file what it is, where it lies and what would be used of it, or why it is refused.

    All pixels are decoded, and nothing is written. Exits with 3 if nothing could be read.
    """
    from osteoscope import workflow

    with staged("looking at files") as watch:
        found = workflow.inspect(paths, watch=watch)
    if json:
        summary(found.to_json(), [], as_json=True)
    else:
        _show(found)
    if not found.images:
        where = paths[0] if len(paths) == 1 else None
        raise InputError("holds no image that can be read", path=where, remedy="name a file, folder or zip of images")


def _show(found: Inspection) -> None:
    """Print what was found as tables."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_LOG, highlight=False)
    folder = _common_folder(found)
    if folder:
        console.print(Text(f"In {folder}"))
    if found.images:
        console.print(_table_of_images(found.images, folder))
    for sign, meaning in _legend(found.images):
        console.print(Text(f"  {sign}: {meaning}"))
    if found.refused:
        console.print(_table_of_refusals(found.refused, folder))
    for line in _closing_lines(found, folder):
        console.print(Text(line))


def _legend(images: Sequence[InspectedImage]) -> list[tuple[str, str]]:
    """Explain the codes and the notes of the table."""
    from osteoscope.imaging.refusal import LEFT_OUT

    codes = {one.not_used_because for one in images}
    notes = enumerate(_remarks(images), start=1)
    return [*((code, LEFT_OUT[code]) for code in LEFT_OUT if code in codes), *((str(n), remark) for n, remark in notes)]


def _remarks(images: Sequence[InspectedImage]) -> list[str]:
    """Give all remarks, each once. Of what holds labels it does not matter how it would be read as an image."""
    return list(dict.fromkeys(remark for one in images if not _holds_labels(one) for remark in one.remarks))


def _holds_labels(one: InspectedImage) -> bool:
    return one.not_used_because == "labels"


def _table_of_images(images: Sequence[InspectedImage], folder: str) -> Table:
    from rich.text import Text

    numbers = {remark: number for number, remark in enumerate(_remarks(images), start=1)}
    table = _table("Read", "Used", "Image", "What it is", "Stored as", "Notes")
    for one in images:
        notes = [str(numbers[remark]) for remark in one.remarks if remark in numbers and not _holds_labels(one)]
        used = Text(_used(one), "yellow" if one.use is None else "green")
        table.add_row(
            used, *map(Text, (_image(one, folder), _what(one), _stored_as(one), " ".join(notes))), end_section=True
        )
    return table


def _table_of_refusals(refused: Sequence[RefusedFiles], folder: str) -> Table:
    from rich.text import Text

    def reason(one: RefusedFiles) -> tuple[str, str, str]:
        return one.refusal.code, one.refusal.sentence, one.refusal.remedy or ""

    table = _table("Refused", "Files", "Code", "Why", "What to do")
    for (code, sentence, remedy), alike in groupby(sorted(refused, key=reason), key=reason):
        names = _names([name for one in alike for name in one.files], folder)
        table.add_row(Text(names), Text(code, "red"), Text(sentence), Text(remedy), end_section=True)
    return table


def _table(title: str, *headings: str) -> Table:
    """Make a table in which names take what the other columns leave."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold", max_width=_WIDEST.get(heading))
    return table


def _closing_lines(found: Inspection, folder: str) -> list[str]:
    """Sum up in a line or two."""
    used = sum(one.use is not None for one in found.images)
    refused = sum(len(one.files) for one in found.refused)
    lines = [f"Images that can be read: {len(found.images)}, of which would be used: {used}. Files refused: {refused}."]
    if found.beside:
        names = ", ".join(_below(folder, name) for name in found.beside[:_MOST_NAMES])
        more = ", ..." if len(found.beside) > _MOST_NAMES else ""
        lines.append(f"Files beside the images: {len(found.beside)} ({names}{more})")
    return lines


def _common_folder(found: Inspection) -> str:
    """Find the deepest folder, or zip, that holds everything; none where there is no such."""
    names = [name for one in found.images for name in one.files]
    names.extend(name for one in found.refused for name in one.files)
    names.extend(found.beside)
    try:
        return os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120
    except ValueError:
        return ""


def _below(folder: str, name: str) -> str:
    return name.removeprefix(f"{folder}/") if folder else name


def _names(names: Sequence[str], folder: str) -> str:
    """Name files, those of one folder by the first and the last."""
    lines = []
    folders = [list(alike) for _, alike in groupby(names, key=os.path.dirname)]
    for alike in folders[:_MOST_FOLDERS]:
        if len(alike) == 1:
            lines.append(_below(folder, alike[0]))
            continue
        # Names of many files are often their UIDs.
        above, first = os.path.split(_below(folder, alike[0]))
        lines.append(os.path.join(above, _shortened(first)))  # noqa: PTH118
        lines.append(f"to {_shortened(os.path.basename(alike[-1]))}: {len(alike)} files")  # noqa: PTH119
    if len(folders) > _MOST_FOLDERS:
        lines.append(f"and {sum(map(len, folders[_MOST_FOLDERS:]))} more")
    return "\n".join(lines)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME // 2]}…{name[-_LONGEST_NAME // 2 :]}"


def _image(one: InspectedImage, folder: str) -> str:
    """Name an image by its files, and by its series where it has one."""
    lines = [_names(one.files, folder)]
    if one.copies:
        lines.append(f"once more: {_names(one.copies, folder)}")
    if one.image.series:
        lines.append(": ".join(filter(None, (f"series {one.image.series}", one.image.part))))
    return "\n".join(lines)


def _what(one: InspectedImage) -> str:
    """Say what an image is: kind and place, planes × rows × columns, and the steps between them."""
    geometry = one.image.volume.geometry
    return "\n".join((f"{_kind(one)}{_place(geometry)}", " × ".join(map(str, geometry.shape)), _spacing(geometry)))


def _kind(one: InspectedImage) -> str:
    if _holds_labels(one):
        return "labels"
    modality, stated = one.image.volume.modality, one.image.dicom_modality
    return modality if stated in ("", modality) else f"{modality} ({stated})"


def _spacing(geometry: Geometry) -> str:
    if geometry.steps is not None:
        return " × ".join(f"{step:.4g}" for step in geometry.steps) + " mm"
    if geometry.spacing is not None:
        return f"{geometry.spacing.row:.4g} × {geometry.spacing.column:.4g} mm ({geometry.spacing.kind})"
    return (
        "scale unknown"
        if geometry.aspect == 1
        else f"scale unknown, pixels {geometry.aspect:.3g} times as high as wide"
    )


def _place(geometry: Geometry) -> str:
    from osteoscope.workflow.inspecting import directions

    sides = directions(geometry)
    if sides is None:
        return ""
    several = f", to the {sides['planes']}" if geometry.shape[0] > 1 else ""
    tilt = geometry.tilt or 0
    tilted = f", tilted by {tilt:.1f}°" if tilt >= _LEAST_TILT else ""
    return f", {geometry.plane_name}{several}{tilted}"


def _stored_as(one: InspectedImage) -> str:
    """Say how an image is stored, what range its values have, and their hash."""
    lines = [*(one.image.encodings or (one.image.format,))]
    if one.values.low is not None:
        unit = " HU" if one.image.volume.modality == "CT" else ""
        lines.append(f"{one.values.low:.4g} to {one.values.high:.4g}{unit}")
    return "\n".join((*lines, f"values {one.values.sha256[:12]}"))


def _used(one: InspectedImage) -> str:
    if one.use is None:
        return f"no: {one.not_used_because}"
    planes = one.image.volume.geometry.shape[0]
    return "yes" if planes == 1 else f"yes, {len(one.use.planes)} of {planes} planes"
