"""The sentences of the summary page in each language."""

from dataclasses import dataclass
from datetime import datetime

from pacs import codes
from pacs.codes import Language
from pacs.meanings import PRIVATE_SCHEME
from pacs.report.exam import INCOMPLETE, ReportedExam
from pacs.report.header import valid_date
from pacs.report.percentages import percentage

# Criteria of completeness that a reader has to know of; the others are a matter of this software.
_MAXIMUM_WAIT, _EXPECTED_COUNT = "maximum_wait", "expected_count"


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
    silent: str
    image: str
    called_slice: str
    series: str
    reconstruction: str
    complete: str
    incomplete: str
    perhaps: str
    supersedes: str
    supersedes_other: str
    caption: str
    caption_without: str
    despite: str
    superseded: str
    superseded_by: str
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
        silent="The slices that show most of the lungs. Without a verdict there is no evidence to show.",
        image="CT image {image}, {position} mm",
        called_slice="{name} {percent}",
        series="CT series {number}: {description}",
        reconstruction="Kernel {kernel}, slices of {thickness} mm",
        complete="All images that the PACS names came",
        incomplete="Only {count} of {expected} images came",
        perhaps="Images may be missing: more were still expected",
        supersedes="Supersedes the result of revision {number}",
        supersedes_other="Supersedes an earlier result of this study",
        caption="AI evidence for {name}, CT image {image}, not for diagnosis",
        caption_without="CT image {image}, without a map of evidence, not for diagnosis",
        despite="This model serves although it failed its tests",
        superseded="Superseded",
        superseded_by="All that follows in this series is superseded\nby revision {number} of {moment}.",
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
        silent="Os cortes que mais mostram os pulmões. Sem veredito não há evidência a mostrar.",
        image="Imagem de TC {image}, {position} mm",
        called_slice="{name} {percent}",
        series="Série de TC {number}: {description}",
        reconstruction="Kernel {kernel}, cortes de {thickness} mm",
        complete="Chegaram todas as imagens que o PACS indica",
        incomplete="Chegaram apenas {count} de {expected} imagens",
        perhaps="Podem faltar imagens: esperavam-se mais",
        supersedes="Substitui o resultado da revisão {number}",
        supersedes_other="Substitui um resultado anterior deste estudo",
        caption="Evidência de IA: {name}, imagem de TC {image}, não é diagnóstico",
        caption_without="Imagem de TC {image}, sem mapa de evidência, não é diagnóstico",
        despite="Este modelo está em uso embora reprovado nos testes",
        superseded="Substituído",
        superseded_by="Tudo o que segue nesta série foi substituído\npela revisão {number} de {moment}.",
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
        silent="Los cortes que más muestran los pulmones. Sin veredicto no hay evidencia que mostrar.",
        image="Imagen de TC n.º {image}, {position} mm",
        called_slice="{name} {percent}",
        series="Serie de TC {number}: {description}",
        reconstruction="Kernel {kernel}, cortes de {thickness} mm de grosor",
        complete="Llegaron todas las imágenes que indica el PACS",
        incomplete="Llegaron solo {count} de {expected} imágenes",
        perhaps="Pueden faltar imágenes: se esperaban más",
        supersedes="Sustituye el resultado de la revisión {number}",
        supersedes_other="Sustituye un resultado anterior de este estudio",
        caption="Evidencia de IA: {name}, imagen de TC {image}, no es diagnóstico",
        caption_without="Imagen de TC {image}, sin mapa de evidencia, no es diagnóstico",
        despite="Este modelo está en uso aunque no superó las pruebas",
        superseded="Sustituido",
        superseded_by="Todo lo que sigue en esta serie fue sustituido\npor la revisión {number} del {moment}.",
        patient="Paciente {name}, {number}, nac. {birth}",
        study="TC de {date}",
        accession="Número de acceso {number}",
        comma=",",
        date="%d/%m/%Y %H:%M",
    ),
}


def percent(value: float, language: Language) -> str:
    """Return a probability in percent with one decimal, and never 100 % or 0 %."""
    return f"{percentage(value, 1):.1f}".replace(".", WORDING[language].comma) + "%"


def number(value: float, language: Language) -> str:
    """Return a number without zeros at its end, as it is written in the language."""
    return f"{value:g}".replace(".", WORDING[language].comma)


def moment(value: datetime, language: Language) -> str:
    """Return a time as it is written in the language, with its zone."""
    zone = value.strftime("%z")
    return f"{value.strftime(WORDING[language].date)} {zone[:3]}:{zone[3:]}"


def day(value: str, language: Language) -> str:
    """Return a date of a header as it is written in the language; a question mark where there is no valid one."""
    valid = valid_date(value)
    return datetime.strptime(valid, "%Y%m%d").strftime(WORDING[language].date.split()[0]) if valid else "?"  # noqa: DTZ007 – a day


def reason(exam: ReportedExam) -> str:
    """Return why an exam has no verdict; nothing where it has one."""
    code = codes.reason_value(exam.reason_code)
    return codes.translation(code, PRIVATE_SCHEME, exam.language) or exam.reason_code


def doubts(exam: ReportedExam) -> list[str]:
    """Return what a reader has to be warned of before anything else."""
    words = WORDING[exam.language]
    return [
        *([words.despite] if exam.algorithm.despite else []),
        *([_missing(exam)] if exam.completeness == INCOMPLETE else []),
        *([words.perhaps] if exam.completeness == _MAXIMUM_WAIT else []),
        *(codes.meaning(doubt, PRIVATE_SCHEME, exam.language) for doubt in exam.doubts),
    ]


def statements(exam: ReportedExam) -> list[str]:
    """Return what is said of the exam beside its verdict, and nothing of how it came about."""
    words = WORDING[exam.language]
    header, scope = exam.header, "not_confirmed" if exam.scope_rule is None else "by_rule"
    thickness = next((key.thickness for key in exam.key_slices if key.thickness), None)
    return [
        codes.meaning(scope, PRIVATE_SCHEME, exam.language),
        words.series.format(
            number="?" if header.series_number is None else header.series_number,
            description=header.series_description or "?",
        ),
        words.reconstruction.format(
            kernel=header.kernel or "?", thickness="?" if thickness is None else number(thickness, exam.language)
        ),
        *([words.complete] if exam.completeness == _EXPECTED_COUNT else []),
    ]


def superseding(exam: ReportedExam) -> str:
    """Return which result this one supersedes; nothing where it is the first."""
    words = WORDING[exam.language]
    if exam.predecessor is None:
        return ""
    if exam.revision > 1 and exam.predecessor.series_uid == exam.header.series_uid:
        return words.supersedes.format(number=exam.revision - 1)
    return words.supersedes_other


def _missing(exam: ReportedExam) -> str:
    return WORDING[exam.language].incomplete.format(count=exam.instance_count, expected=exam.expected_count)
