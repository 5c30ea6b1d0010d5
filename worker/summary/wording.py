"""The sentences of the summary page in each language."""

from dataclasses import dataclass
from datetime import datetime

from pacs import codes
from pacs.codes import Language
from pacs.meanings import PRIVATE_SCHEME
from pacs.report.exam import ReportedExam
from pacs.report.header import valid_date


@dataclass(frozen=True)
class Wording:
    """What a page says; braces are filled in. comma: what parts whole numbers from decimals."""

    title: str
    disclaimer: str
    probability: str
    coverage: str
    called: str
    range: str
    model: str
    software: str
    classified: str
    revision: str
    axis: str
    axis_probability: str
    lung: str
    map: str
    no_map: str
    key_slice: str
    patient: str
    study: str
    accession: str
    comma: str
    date: str


WORDING: dict[Language, Wording] = {
    "en": Wording(
        title="Pattern of interstitial lung disease on CT",
        disclaimer="Decision support, not a diagnosis. Not a medical device.",
        probability="Probability",
        coverage="{classified} of {total} slices classified",
        called="Slices called {name}: {count}",
        range="{first} to {last} mm along the body",
        model="Model {name} {version} ({sha})",
        software="Reticula {version}",
        classified="Classified {moment}",
        revision="Revision {number}",
        axis="Position along the body, foot to head (mm)",
        axis_probability="Probability (%)",
        lung="lung in the slice",
        map="Colour: what in the slice speaks for {name}. It outlines no lesion.",
        no_map="This network cannot show what in a slice speaks for a class.",
        key_slice="{position} mm: {name} {percent}",
        patient="Patient {name}, {number}, born {birth}",
        study="CT of {date}",
        accession="Accession number {number}",
        comma=".",
        date="%Y-%m-%d %H:%M",
    ),
    "pt-BR": Wording(
        title="Padrão de doença pulmonar intersticial na TC",
        disclaimer="Apoio à decisão, não é um diagnóstico. Não é um dispositivo médico.",
        probability="Probabilidade",
        coverage="{classified} de {total} cortes classificados",
        called="Cortes classificados como {name}: {count}",
        range="{first} a {last} mm ao longo do corpo",
        model="Modelo {name} {version} ({sha})",
        software="Reticula {version}",
        classified="Classificado em {moment}",
        revision="Revisão {number}",
        axis="Posição ao longo do corpo, dos pés à cabeça (mm)",
        axis_probability="Probabilidade (%)",
        lung="pulmão no corte",
        map="Cor: o que no corte fala a favor de {name}. Não delimita lesões.",
        no_map="Esta rede não permite mostrar o que fala a favor de uma classe.",
        key_slice="{position} mm: {name} {percent}",
        patient="Paciente {name}, {number}, nasc. {birth}",
        study="TC de {date}",
        accession="Número de acesso {number}",
        comma=",",
        date="%d/%m/%Y %H:%M",
    ),
    "es": Wording(
        title="Patrón de enfermedad pulmonar intersticial en TC",
        disclaimer="Apoyo a la decisión, no es un diagnóstico. No es un dispositivo médico.",
        probability="Probabilidad",
        coverage="{classified} de {total} cortes clasificados",
        called="Cortes clasificados como {name}: {count}",
        range="{first} a {last} mm a lo largo del cuerpo",
        model="Modelo {name} {version} ({sha})",
        software="Reticula {version}",
        classified="Clasificado el {moment}",
        revision="Revisión {number}",
        axis="Posición a lo largo del cuerpo, de pies a cabeza (mm)",
        axis_probability="Probabilidad (%)",
        lung="pulmón en el corte",
        map="Color: lo que en el corte habla a favor de {name}. No delimita lesiones.",
        no_map="Esta red no permite mostrar lo que habla a favor de una clase.",
        key_slice="{position} mm: {name} {percent}",
        patient="Paciente {name}, {number}, nac. {birth}",
        study="TC de {date}",
        accession="Número de acceso {number}",
        comma=",",
        date="%d/%m/%Y %H:%M",
    ),
}


def percent(value: float, language: Language) -> str:
    """Return a part of one in percent with one decimal, and never 100 % or 0 % of what is not quite that."""
    shown = min(max(round(value * 100, 1), 0.1), 99.9) if 0 < value < 1 else value * 100
    return f"{shown:.1f}".replace(".", WORDING[language].comma) + "%"


def moment(value: datetime, language: Language) -> str:
    """Return a time as it is written in the language, with its zone."""
    zone = value.strftime("%z")
    return f"{value.strftime(WORDING[language].date)} {zone[:3]}:{zone[3:]}"


def day(value: str, language: Language) -> str:
    """Return a date of a header as it is written in the language; a question mark where there is no valid one."""
    valid = valid_date(value)
    return datetime.strptime(valid, "%Y%m%d").strftime(WORDING[language].date.split()[0]) if valid else "?"  # noqa: DTZ007 – a day


def statements(exam: ReportedExam) -> list[str]:
    """Return what the report says in codes: why it abstains, whether the disease is confirmed, how complete it is."""
    scope = "not_confirmed" if exam.scope_rule is None else "by_rule"
    names = [exam.reason_code, scope, exam.completeness]
    return [codes.meaning(name, PRIVATE_SCHEME, exam.language) for name in names if name]
