"""The summary page: verdict or why there is none, key slices, the curve along the body, coverage, and what it is not.

Where there is no verdict, it shows no class: no colour of one, no map, no bar and no percentage.
"""

from io import BytesIO
from textwrap import wrap

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import NDArray

from pacs import codes
from pacs.codes import short_name
from pacs.report.content import cautions
from worker.summary.heat_map import draw_heat_map, evidence_scale, image_name, sides
from worker.summary.material import Material, ShownSlice
from worker.summary.theme import DPI, LABEL, MARGIN, PRINT, SCREEN, Theme, pixels
from worker.summary.wording import WORDING, day, doubts, moment, percent, reason, statements, superseding

_LEFT, _RIGHT, _TOP, _BOTTOM = MARGIN + 0.003, 1 - MARGIN - 0.003, 1 - MARGIN - 0.005, MARGIN + 0.005
_SLICES, _COLUMNS, _GAP = 6, 3, 12
_TILE = 256  # pixels of a key slice's longer side
_WALL, _HIGHEST = 0.40, 0.44  # where the key slices begin, and how high they may be
_FACT_LETTERS, _LINE_LETTERS, _LIMIT_LINES = 44, 176, 3
# Letters stay letters: whoever prints or searches the page has real fonts.
_TRUE_TYPE = 42


def draw_page(material: Material) -> NDArray[np.uint8]:
    """Return the page as RGB (960, 1280, 3). It names no patient: the PACS does."""
    return pixels(_draw(material, SCREEN))


def print_page(material: Material) -> bytes:
    """Return the page as a PDF of A4, which names the patient: paper goes astray."""
    figure = _draw(material, PRINT)
    header, words = material.exam.header, WORDING[material.exam.language]
    patient = header.patient
    lines = [
        words.patient.format(
            # Of several writings of a name the first is in Latin letters (PS3.5 section 6.2.1.1).
            name=patient.name.partition("=")[0].replace("^", " ").strip(),
            number=patient.patient_id,
            birth=day(patient.birth_date, material.exam.language),
        ),
        words.study.format(date=day(header.study_date, material.exam.language)),
        *([words.accession.format(number=header.accession_number)] if header.accession_number else []),
    ]
    figure.text(_LEFT, 0.95, _printable("   ".join(lines)), fontsize=10, va="top", color=PRINT.ink, parse_math=False)
    buffer = BytesIO()
    # The moment of the exam, not of the printing: the same exam gives the same bytes.
    metadata = {"CreationDate": material.exam.classified_at, "Title": words.title}
    with mpl.rc_context({"pdf.fonttype": _TRUE_TYPE}):
        figure.savefig(buffer, format="pdf", metadata=metadata)
    return buffer.getvalue()


def _draw(material: Material, theme: Theme) -> Figure:
    figure = Figure(figsize=theme.size, dpi=DPI, facecolor=theme.paper)
    _draw_verdict(figure, material, theme)
    _draw_model(figure, material, theme)
    _draw_facts(figure, material, theme)
    _draw_slices(figure, material, theme)
    _draw_curve(figure, material, theme)
    _draw_limits(figure, material, theme)
    return figure


def _write(
    figure: Figure, x: float, y: float, said: str, theme: Theme, *,
    size: float, colour: str | None = None, bold: bool = False, right: bool = False, below: bool = True,
) -> None:  # fmt: skip
    """Write at a place of the page; below: the place is above the text, else its base line."""
    figure.text(
        x, y, _printable(said), fontsize=size * theme.scale, weight="bold" if bold else "normal", linespacing=1.4,
        ha="right" if right else "left", va="top" if below else "baseline", color=colour or theme.ink, parse_math=False,
    )  # fmt: skip


def _draw_verdict(figure: Figure, material: Material, theme: Theme) -> None:
    """The verdict on the left, and below it what it means, or why there is none."""
    exam = material.exam
    verdict, colour, subtitle = short_name(exam.verdict, exam.language), theme.ink, reason(exam)
    if exam.committed:
        index = [known.name for known in exam.classes].index(exam.verdict)
        known, colour = exam.classes[index], theme.colour(index)
        verdict += "" if exam.certainty is None else f" {percent(exam.certainty, exam.language)}"
        subtitle = codes.translation(known.code_value, known.code_scheme, exam.language) or known.code_meaning
    _write(figure, _LEFT, _TOP, verdict, theme, size=28, colour=colour, bold=True)
    _write(figure, _LEFT, _TOP - 0.052, "\n".join(wrap(subtitle, 46)), theme, size=12.5, bold=not exam.committed)


def _draw_model(figure: Figure, material: Material, theme: Theme) -> None:
    exam, words = material.exam, WORDING[material.exam.language]
    algorithm, superseded = exam.algorithm, superseding(exam)
    _write(figure, _RIGHT, _TOP, words.title, theme, size=11, right=True)
    lines = [
        words.model.format(name=algorithm.name, version=algorithm.version, sha=algorithm.sha256[:12]),
        f"{words.software.format(version=algorithm.software)}, "
        + words.classified.format(moment=moment(exam.classified_at, exam.language)),
        *([words.revision.format(number=exam.revision)] if exam.revision > 1 else []),
        *([superseded] if superseded else []),
    ]
    _write(figure, _RIGHT, _TOP - 0.024, "\n".join(lines), theme, size=8.5, colour=theme.faint, right=True)


def _draw_facts(figure: Figure, material: Material, theme: Theme) -> None:
    """Warnings, then the probabilities of a verdict, then what it rests on."""
    exam, words = material.exam, WORDING[material.exam.language]
    y = _TOP - 0.12
    warnings = _wrapped(doubts(exam), _FACT_LETTERS - 4, "!")
    if warnings:
        _write(figure, _LEFT, y, "\n".join(warnings), theme, size=9.5, colour=theme.warning, bold=True)
        y -= 0.0215 * len(warnings) + 0.012
    if exam.committed:
        y = _draw_bars(figure, material, theme, y)
    positions = material.curve.positions
    called = [
        words.called.format(count=known.slices_called, name=short_name(known.name, exam.language))
        for known in exam.classes
    ]
    facts = [
        *statements(exam),
        words.coverage.format(classified=exam.slices_classified, total=exam.slice_count),
        *(called if exam.committed else []),
        words.range.format(first=f"{positions.min():.0f}", last=f"{positions.max():.0f}"),
    ]
    _write(figure, _LEFT, y, "\n".join(_wrapped(facts, _FACT_LETTERS, "•")), theme, size=9.5)


def _draw_bars(figure: Figure, material: Material, theme: Theme, y: float) -> float:
    """Draw the probability of each class, its name above its bar; return where the next thing begins."""
    exam, words = material.exam, WORDING[material.exam.language]
    _write(figure, _LEFT, y, words.probability, theme, size=9.5, colour=theme.faint)
    for index, known in enumerate(exam.classes):
        top = y - 0.026 - index * 0.046
        said = f"{short_name(known.name, exam.language)}  {percent(known.probability, exam.language)}"
        _write(figure, _LEFT, top, said, theme, size=10.5, bold=True)
        axes = figure.add_axes((_LEFT, top - 0.036, _WALL - _LEFT - 0.03, 0.012))
        axes.barh(0, 1, height=1, color=theme.faint, alpha=0.25)
        axes.barh(0, known.probability, height=1, color=theme.colour(index))
        axes.set(xlim=(0, 1), ylim=(-0.5, 0.5))
        axes.axis("off")
    return y - 0.038 - len(exam.classes) * 0.046


def _draw_slices(figure: Figure, material: Material, theme: Theme) -> None:
    exam, words = material.exam, WORDING[material.exam.language]
    scale = evidence_scale(material)
    tiles = [draw_heat_map(shown, scale, _TILE) for shown in material.slices[:_SLICES]]
    wall = _mosaic(tiles, theme)
    across, down = theme.size
    shape = across / down * wall.shape[0] / wall.shape[1]
    height = min(_HIGHEST, (_RIGHT - _WALL) * shape)
    top, width = _TOP - 0.11, height / shape
    axes = figure.add_axes((_RIGHT - width, top - height, width, height))
    axes.imshow(wall, interpolation="nearest")
    axes.axis("off")
    for index, shown in enumerate(material.slices[:_SLICES]):
        _label_slice(axes, index, shown, material, theme)
    mapped = any(shown.activation is not None for shown in material.slices)
    name = short_name(exam.classes[material.likeliest].name, exam.language)
    said = words.map.format(name=name) if mapped else words.no_map
    said = said if exam.committed else words.silent
    _write(figure, _RIGHT - width, top - height - 0.008, said, theme, size=8.5, colour=theme.faint)


def _label_slice(axes: Axes, index: int, shown: ShownSlice, material: Material, theme: Theme) -> None:
    """Write which image it is, what it is called where there is a verdict, and its sides."""
    exam, words = material.exam, WORDING[material.exam.language]
    row, column = divmod(index, _COLUMNS)
    left, top = column * (_TILE + _GAP), row * (_TILE + _GAP)
    size = 7.5 * theme.scale
    image = words.image.format(image=image_name(shown), position=f"{shown.position_mm:.0f}")
    axes.text(left + _TILE / 2, top + 4, image, ha="center", va="top", fontsize=size, parse_math=False, **LABEL)
    if exam.committed:
        called = words.called_slice.format(
            name=short_name(shown.key.called, exam.language), percent=percent(shown.key.probability, exam.language)
        )
        bottom = top + _TILE - 4
        axes.text(left + _TILE / 2, bottom, called, ha="center", va="bottom", fontsize=size, parse_math=False, **LABEL)
    for x, y, letter in sides(shown)[:2]:
        axes.text(left + x * _TILE, top + y * _TILE, letter, ha="center", va="center", fontsize=size, **LABEL)


def _mosaic(tiles: list[NDArray[np.uint8]], theme: Theme) -> NDArray[np.uint8]:
    """Return the key slices beside each other, each in the middle of its square."""
    step, rows = _TILE + _GAP, _SLICES // _COLUMNS
    paper = np.round(np.array(to_rgb(theme.paper)) * 255).astype(np.uint8)
    wall = np.empty((rows * step - _GAP, _COLUMNS * step - _GAP, 3), np.uint8)
    wall[:] = paper
    for index, tile in enumerate(tiles):
        row, column = divmod(index, _COLUMNS)
        top, left = row * step + (_TILE - tile.shape[0]) // 2, column * step + (_TILE - tile.shape[1]) // 2
        wall[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return wall


def _draw_curve(figure: Figure, material: Material, theme: Theme) -> None:
    """Draw how much lung each slice shows and, where there is a verdict, the probabilities along the body."""
    exam, words, curve = material.exam, WORDING[material.exam.language], material.curve
    axes = figure.add_axes((_LEFT + 0.04, 0.218, _RIGHT - _LEFT - 0.04, 0.072), facecolor=theme.paper)
    axes.fill_between(curve.positions, curve.lung * 100, color=theme.faint, alpha=0.3, lw=0, label=words.lung)
    for index, known in enumerate(exam.classes if exam.committed else ()):
        values = curve.probabilities[:, index] * 100
        axes.plot(
            curve.positions, values, color=theme.colour(index), lw=1.5, marker="o", ms=2.5,
            label=short_name(known.name, exam.language),
        )  # fmt: skip
    for shown in material.slices:
        axes.axvline(shown.position_mm, color=theme.faint, lw=0.8, ls=":")
    axes.set(ylim=(-3, 103))
    if exam.committed:
        axes.set_ylabel(words.axis_probability, fontsize=7.5 * theme.scale, color=theme.ink)
    else:
        axes.set_yticks([])
    axes.set_xlabel(words.axis, fontsize=8.5 * theme.scale, color=theme.ink, labelpad=1)
    axes.tick_params(colors=theme.ink, labelsize=7.5 * theme.scale)
    for spine in axes.spines.values():
        spine.set_color(theme.faint)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 0.96), fontsize=8 * theme.scale, frameon=False, ncols=5,
        labelcolor=theme.ink, borderpad=0.1,
    )  # fmt: skip


def _draw_limits(figure: Figure, material: Material, theme: Theme) -> None:
    """What the model is warned of, and what the page is not."""
    lines = [line for caution in cautions(material.exam) for line in wrap(caution, _LINE_LETTERS)]
    if len(lines) > _LIMIT_LINES:
        lines = [*lines[: _LIMIT_LINES - 1], f"{lines[_LIMIT_LINES - 1]} …"]
    _write(figure, _LEFT, 0.17, "\n".join(lines), theme, size=7.5, colour=theme.faint)
    disclaimer = WORDING[material.exam.language].disclaimer
    _write(figure, _LEFT, _BOTTOM, disclaimer, theme, size=11.5, bold=True, below=False)


def _printable(text: str) -> str:
    """Return a text with a question mark for each letter that the font has not."""
    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(letter if ord(letter) in known or letter == "\n" else "?" for letter in text)


def _wrapped(lines: list[str], width: int, mark: str) -> list[str]:
    """Break lines between words, with a mark before each."""
    return [part for line in lines for part in wrap(f"{mark} {line}", width, subsequent_indent="   ")]
