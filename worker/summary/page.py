"""The summary page: verdict, key slices, the curve along the body, coverage, and what it is not."""

from dataclasses import dataclass
from io import BytesIO
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import NDArray

from pacs.codes import short_name
from worker.summary.heat_map import draw_heat_map, evidence_scale
from worker.summary.material import Material
from worker.summary.wording import WORDING, day, moment, percent, statements

_WIDTH, _HEIGHT, _DPI = 1280, 960, 100
_SLICES, _COLUMNS, _GAP = 6, 3, 12
_TILE = 256  # pixels of a key slice's longer side
# Colours that are told apart without seeing red or green (Okabe & Ito 2008).
_CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")


@dataclass(frozen=True)
class _Theme:
    paper: str
    ink: str
    faint: str


_SCREEN, _PRINT = _Theme("#0E0E0E", "#F2F2F2", "#8A8A8A"), _Theme("white", "black", "#5A5A5A")


def draw_page(material: Material) -> NDArray[np.uint8]:
    """Return the page as RGB (960, 1280, 3). It names no patient: the PACS does."""
    figure = _draw(material, _SCREEN)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])


def print_page(material: Material) -> bytes:
    """Return the page as a PDF, which names the patient: paper goes astray."""
    figure = _draw(material, _PRINT)
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
    figure.text(0.03, 0.985, _printable("   ".join(lines)), fontsize=10, va="top", color=_PRINT.ink, parse_math=False)
    buffer = BytesIO()
    # The moment of the exam, not of the printing: the same exam gives the same bytes.
    figure.savefig(buffer, format="pdf", metadata={"CreationDate": material.exam.classified_at, "Title": words.title})
    return buffer.getvalue()


def _draw(material: Material, theme: _Theme) -> Figure:
    figure = Figure(figsize=(_WIDTH / _DPI, _HEIGHT / _DPI), dpi=_DPI, facecolor=theme.paper)
    _draw_verdict(figure, material, theme)
    _draw_facts(figure, material, theme)
    _draw_slices(figure, material, theme)
    _draw_curve(figure, material, theme)
    disclaimer = WORDING[material.exam.language].disclaimer
    figure.text(0.5, 0.015, disclaimer, fontsize=12, weight="bold", ha="center", color=theme.ink)
    return figure


def _draw_verdict(figure: Figure, material: Material, theme: _Theme) -> None:
    """The verdict on the left; the top centre stays free, for a viewer may lay its controls there."""
    exam, words = material.exam, WORDING[material.exam.language]
    names = [known.name for known in exam.classes]
    verdict = short_name(exam.verdict, exam.language)
    colour = theme.ink
    if exam.verdict in names and exam.certainty is not None:
        verdict += f" {percent(exam.certainty, exam.language)}"
        colour = _colour(names.index(exam.verdict))
    figure.text(0.03, 0.95, verdict, fontsize=34, weight="bold", va="top", color=colour, parse_math=False)
    figure.text(0.97, 0.945, words.title, fontsize=12, va="top", ha="right", color=theme.ink)
    algorithm = exam.algorithm
    lines = [
        words.model.format(name=algorithm.name, version=algorithm.version, sha=algorithm.sha256[:12]),
        words.software.format(version=algorithm.software),
        words.classified.format(moment=moment(exam.classified_at, exam.language)),
    ]
    if exam.revision > 1:
        lines.append(words.revision.format(number=exam.revision))
    figure.text(
        0.97, 0.915, "\n".join(lines), fontsize=9.5, va="top", ha="right", color=theme.faint, parse_math=False,
        linespacing=1.4,
    )  # fmt: skip


def _draw_facts(figure: Figure, material: Material, theme: _Theme) -> None:
    """Probabilities as bars, then what they rest on."""
    exam, words = material.exam, WORDING[material.exam.language]
    figure.text(0.03, 0.815, words.probability, fontsize=12, color=theme.faint)
    axes = figure.add_axes((0.03, 0.795 - 0.055 * len(exam.classes), 0.27, 0.055 * len(exam.classes)))
    axes.set(xlim=(0, 1), ylim=(len(exam.classes) - 0.4, -0.6), xticks=[], yticks=[], facecolor=theme.paper)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for index, known in enumerate(exam.classes):
        axes.barh(index, 1, height=0.55, color=theme.faint, alpha=0.25)
        axes.barh(index, known.probability, height=0.55, color=_colour(index))
        label = f"{short_name(known.name, exam.language)}  {percent(known.probability, exam.language)}"
        axes.text(0.02, index, label, va="center", fontsize=12, weight="bold", color=theme.ink, parse_math=False)
    positions = material.curve.positions
    facts = [
        *statements(exam),
        words.coverage.format(classified=exam.slices_classified, total=exam.slice_count),
        *(
            words.called.format(count=known.slices_called, name=short_name(known.name, exam.language))
            for known in exam.classes
        ),
        words.range.format(first=f"{positions.min():.0f}", last=f"{positions.max():.0f}"),
    ]
    for line, fact in enumerate(_wrapped(facts, 46)):
        figure.text(0.03, 0.635 - 0.0245 * line, fact, fontsize=10.5, color=theme.ink, parse_math=False)


def _draw_slices(figure: Figure, material: Material, theme: _Theme) -> None:
    exam, words = material.exam, WORDING[material.exam.language]
    scale = evidence_scale(material)
    tiles = [draw_heat_map(shown, scale, _TILE) for shown in material.slices[:_SLICES]]
    wall = _mosaic(tiles, theme)
    axes = figure.add_axes((0.355, 0.265, 0.62, 0.62 * _WIDTH / _HEIGHT * wall.shape[0] / wall.shape[1]))
    axes.imshow(wall, interpolation="nearest")
    axes.axis("off")
    for index, shown in enumerate(material.slices[:_SLICES]):
        label = words.key_slice.format(
            position=f"{shown.position_mm:.0f}", name=short_name(shown.key.called, exam.language),
            percent=percent(shown.key.probability, exam.language),
        )  # fmt: skip
        row, column = divmod(index, _COLUMNS)
        x, y = column * (_TILE + _GAP) + _TILE / 2, row * (_TILE + _GAP) + _TILE - 6
        axes.text(x, y, label, ha="center", va="bottom", fontsize=9, color="white", parse_math=False)
    mapped = any(shown.activation is not None for shown in material.slices)
    name = short_name(exam.classes[material.likeliest].name, exam.language)
    figure.text(0.355, 0.245, words.map.format(name=name) if mapped else words.no_map, fontsize=9.5, color=theme.faint)


def _mosaic(tiles: list[NDArray[np.uint8]], theme: _Theme) -> NDArray[np.uint8]:
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


def _draw_curve(figure: Figure, material: Material, theme: _Theme) -> None:
    exam, words, curve = material.exam, WORDING[material.exam.language], material.curve
    axes = figure.add_axes((0.06, 0.095, 0.91, 0.13), facecolor=theme.paper)
    axes.fill_between(curve.positions, curve.lung * 100, color=theme.faint, alpha=0.3, lw=0, label=words.lung)
    for index, known in enumerate(exam.classes):
        values = curve.probabilities[:, index] * 100
        axes.plot(
            curve.positions, values, color=_colour(index), lw=1.5, marker="o", ms=2.5,
            label=short_name(known.name, exam.language),
        )  # fmt: skip
    for shown in material.slices:
        axes.axvline(shown.position_mm, color=theme.faint, lw=0.8, ls=":")
    axes.set(ylim=(-3, 103))
    axes.set_xlabel(words.axis, fontsize=9, color=theme.ink)
    axes.set_ylabel(words.axis_probability, fontsize=9, color=theme.ink)
    axes.tick_params(colors=theme.ink, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(theme.faint)
    legend = axes.legend(loc="lower right", bbox_to_anchor=(1, 0.98), fontsize=8, frameon=False, ncols=5)
    for text in legend.get_texts():
        text.set_color(theme.ink)


def _colour(index: int) -> str:
    return _CLASS_COLOURS[index % len(_CLASS_COLOURS)]


def _printable(text: str) -> str:
    """Return a text with a question mark for each letter that the font has not."""
    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(letter if ord(letter) in known else "?" for letter in text)


def _wrapped(lines: list[str], width: int) -> list[str]:
    """Break lines between words."""
    return [part for line in lines for part in wrap(f"• {line}", width, subsequent_indent="   ")]
