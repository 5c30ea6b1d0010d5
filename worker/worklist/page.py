"""The worklist as one HTML file that needs nothing else: no script, no picture, no other file."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from html import escape
from pathlib import Path

from pacs.codes import Language, reason_value, short_name, translation
from pacs.durable import write_whole
from pacs.meanings import PRIVATE_SCHEME
from worker.summary.wording import WORDING, day, percent
from worker.worklist.entries import Entry, Worklist

Window = tuple[date, date]  # the first and the last day of the studies that were asked for


@dataclass(frozen=True)
class _Words:
    title: str
    columns: tuple[str, ...]
    window: str
    unread: str
    unread_means: str
    order: str
    nothing: str
    incomplete: str
    made: str
    age: tuple[str, str, str]
    open: str


_WORDS: dict[Language, _Words] = {
    "en": _Words(
        "Worklist: pattern of interstitial lung disease",
        ("", "Result", "Probability", "Reason", "Patient", "Number", "CT of", "Accession", "Age of the result", ""),
        "CT of {first} to {last} (Study Date) only; what was taken on other days does not stand here.",
        "new",
        "new: no person has verified the report in the PACS yet.",
        "UIP first, then NSIP, then indeterminate; of each the oldest first.",
        "There are no reports.",
        "This list is not complete: {count} series could not be read from the PACS. Reports may be missing from it, or "
        "stand in it though they were taken back.",
        "As the PACS had it on {moment}.",
        ("{count} days", "{count} h", "{count} min"),
        "Open",
    ),
    "pt-BR": _Words(
        "Lista de trabalho: padrão de doença pulmonar intersticial",
        ("", "Resultado", "Probabilidade", "Motivo", "Paciente", "Número", "TC de", "Acesso", "Idade do resultado", ""),
        "Somente TC de {first} a {last} (data do estudo); o que é de outros dias não consta aqui.",
        "novo",
        "novo: ninguém verificou ainda o relatório no PACS.",
        "Primeiro PIU, depois PINE, depois indeterminado; de cada um, o mais antigo primeiro.",
        "Não há relatórios.",
        "Esta lista não está completa; séries que não puderam ser lidas do PACS: {count}. Podem faltar relatórios, ou "
        "constar relatórios já retirados.",
        "Como o PACS tinha em {moment}.",
        ("{count} dias", "{count} h", "{count} min"),
        "Abrir",
    ),
    "es": _Words(
        "Lista de trabajo: patrón de enfermedad pulmonar intersticial",
        (
            "",
            "Resultado",
            "Probabilidad",
            "Motivo",
            "Paciente",
            "Número",
            "TC de",
            "Acceso",
            "Antigüedad del resultado",
            "",
        ),
        "Solo TC del {first} al {last} (fecha del estudio); lo de otros días no figura aquí.",
        "nuevo",
        "nuevo: nadie ha verificado aún el informe en el PACS.",
        "Primero NIU, después NINE, después indeterminado; de cada uno, el más antiguo primero.",
        "No hay informes.",
        "Esta lista no está completa; series que no se pudieron leer del PACS: {count}. Pueden faltar informes, o "
        "figurar informes ya retirados.",
        "Como lo tenía el PACS el {moment}.",
        ("{count} días", "{count} h", "{count} min"),
        "Abrir",
    ),
}
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.35rem;margin:0 0 .3rem}p{margin:.2rem 0;color:#555}
table{border-collapse:collapse;width:100%;margin:1rem 0}th{text-align:left;font-weight:600;color:#555}
th,td{padding:.45rem .6rem;border-bottom:1px solid #ddd}
.warning{color:#a00000;font-weight:700}
.verdict{font-weight:700}.unread{font-weight:700;font-size:.8rem}.u1 .verdict{color:#8a5200}.u2 .verdict{color:#005a8c}
@media(prefers-color-scheme:dark){body{color:#eee;background:#121212}p,th{color:#aaa}.warning{color:#ff8a80}th,td{border-color:#333}
a{color:#8ab4f8}.u1 .verdict{color:#f0b429}.u2 .verdict{color:#7cc4f0}}
""".strip().replace("\n", "")


def window_sentence(window: Window, language: Language) -> str:
    """Return which studies were asked for."""
    first, last = (day(f"{each:%Y%m%d}", language) for each in window)
    return _WORDS[language].window.format(first=first, last=last)


def incomplete_sentence(count: int, language: Language) -> str:
    """Return the sentence that says how many series could not be read."""
    return _WORDS[language].incomplete.format(count=count)


def unread_mark(entry: Entry, language: Language) -> str:
    """Return the mark of a report that no person has verified; nothing for one that somebody has."""
    return "" if entry.report.verified else _WORDS[language].unread


def reason(entry: Entry, language: Language) -> str:
    """Return why there is no verdict, in the reader's language where its code is known, else in the report's."""
    report = entry.report
    return translation(reason_value(report.reason_code), PRIVATE_SCHEME, language) or report.reason


def draw_page(worklist: Worklist, language: Language, moment: datetime, window: Window) -> str:
    """Return the page; `moment`: when the PACS was asked."""
    words = _WORDS[language]
    head = "".join(f"<th scope=col>{escape(column)}</th>" for column in words.columns)
    rows = "".join(_row(entry, language, moment) for entry in worklist.entries)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
    if not rows and not worklist.left_out:
        table = f"<p>{words.nothing}</p>"
    warning = (
        worklist.left_out and f"<p class=warning>{escape(incomplete_sentence(len(worklist.left_out), language))}</p>"
    )
    made = words.made.format(moment=moment.astimezone().strftime(f"{WORDING[language].date} %Z"))
    return (
        f'<!DOCTYPE html><html lang="{language}"><head><meta charset="utf-8"><title>{escape(words.title)}</title>'
        '<meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<style>{_STYLE}</style></head><body><h1>{escape(words.title)}</h1><p>{escape(words.order)}</p>"
        f"<p>{escape(window_sentence(window, language))}</p><p>{escape(words.unread_means)}</p>{warning or ''}{table}"
        f"<p>{escape(made)}</p><p>{escape(WORDING[language].disclaimer)}</p></body></html>\n"
    )


def write_page(path: Path, worklist: Worklist, language: Language, window: Window) -> None:
    """Write the page so that whoever opens it finds the old one or the new one, whole. Raises OSError."""
    write_whole(path, draw_page(worklist, language, datetime.now(UTC), window).encode(), durable=False)


def _row(entry: Entry, language: Language, moment: datetime) -> str:
    report = entry.report
    link = "" if entry.link is None else f'<a href="{escape(entry.link)}">{escape(_WORDS[language].open)}</a>'
    certainty = "" if report.certainty is None else percent(report.certainty, language)
    cells = [
        f'<td class="unread">{escape(unread_mark(entry, language))}</td>',
        f'<td class="verdict">{escape(short_name(entry.verdict, language))}</td>',
        *(
            f"<td>{escape(value)}</td>"
            for value in (
                certainty,
                reason(entry, language),
                report.patient_name.partition("=")[0].replace("^", " ").strip(),
                report.patient_id,
                day(report.study_date, language),
                report.accession_number,
                "?" if report.reported_at is None else _age(moment - report.reported_at, language),
            )
        ),
        f"<td>{link}</td>",
    ]
    return f'<tr class="u{entry.urgency}">{"".join(cells)}</tr>'


def _age(age: timedelta, language: Language) -> str:
    days, hours, minutes = _WORDS[language].age
    if age >= timedelta(days=2):
        return days.format(count=age.days)
    if age >= timedelta(hours=1):
        return hours.format(count=int(age.total_seconds() // 3600))
    return minutes.format(count=max(0, int(age.total_seconds() // 60)))
