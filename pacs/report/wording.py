"""The sentences of reports, notices and pages in each language; coded concepts stand in `pacs.meanings`."""

import re

from pacs.codes import LANGUAGES, Language
from pacs.selection import Note

_SENTENCES = {
    "disclaimer": (
        "Decision support, not a diagnosis; not a medical device",
        "Apoio à decisão, não é um diagnóstico; não é um dispositivo médico",
        "Apoyo a la decisión, no es un diagnóstico; no es un dispositivo médico",
    ),
    "derivation": (
        "Made by an algorithm; not for diagnosis",
        "Feito por um algoritmo; não destinado a diagnóstico",
        "Hecho por un algoritmo; no apto para diagnóstico",
    ),
    "corrected": (
        "Taken from the PACS, which differs from the images: {fields}",
        "Conforme o PACS, que difere das imagens: {fields}",
        "Según el PACS, que difiere de las imágenes: {fields}",
    ),
    "limits": ("Limits of the model: {limits}", "Limites do modelo: {limits}", "Límites del modelo: {limits}"),
    "despite": (
        "Made active despite a failed battery of tests: {why}",
        "Ativado apesar de reprovado nos testes: {why}",
        "Activado a pesar de no superar las pruebas: {why}",
    ),
    "exam": ("Exam", "Exame", "Examen"),
    "slice": ("Slice", "Corte", "Corte"),
    # What the algorithm was given.
    "scope_rule": ("scope rule {rule}", "regra de escopo {rule}", "regla de alcance {rule}"),
    "instances_came": (
        "{count} of {expected} instances came",
        "chegaram {count} de {expected} instâncias",
        "llegaron {count} de {expected} instancias",
    ),
    "bundle": ("bundle sha256 {sha256}", "modelo, sha256 do pacote {sha256}", "modelo, sha256 del paquete {sha256}"),
    "operating_point": ("operating point {point}", "ponto de operação {point}", "punto de operación {point}"),
    "network": (
        "architecture {architecture}, arithmetic {arithmetic}",
        "arquitetura {architecture}, aritmética {arithmetic}",
        "arquitectura {architecture}, aritmética {arithmetic}",
    ),
    "software": ("reticula {version}", "reticula {version}", "reticula {version}"),
}  # fmt: skip

# What is said of images that were left out, by the code of the note.
_NOTES = {
    "unreadable": (
        "{count} unreadable files left out",
        "{count} arquivos ilegíveis deixados de fora",
        "{count} archivos ilegibles excluidos",
    ),
    "localizer": (
        "{count} images left out (localizer)",
        "{count} imagens deixadas de fora (localizador)",
        "{count} imágenes excluidas (localizador)",
    ),
    "page": (
        "{count} images left out (page)",
        "{count} imagens deixadas de fora (páginas de dose ou protocolo)",
        "{count} imágenes excluidas (páginas de dosis o protocolo)",
    ),
    "projection": (
        "{count} images left out (projection)",
        "{count} imagens deixadas de fora (projeção)",
        "{count} imágenes excluidas (proyección)",
    ),
    "other_phase": (
        "{count} images of other phases left out",
        "{count} imagens de outras fases deixadas de fora",
        "{count} imágenes de otras fases excluidas",
    ),
    "same_position": (
        "{count} images at positions that another one holds left out",
        "{count} imagens em posições já ocupadas por outra deixadas de fora",
        "{count} imágenes en posiciones ya ocupadas por otra excluidas",
    ),
    "undecoded": (
        "{count} slices could not be decoded",
        "{count} cortes não puderam ser decodificados",
        "{count} cortes no se pudieron decodificar",
    ),
}

# Limits as our own commands state them; what a hospital writes of its model stays in its words.
_LIMITS = {
    r"Knows phantoms only, made by '(?P<command>.*)': it says nothing about a patient\.": (
        "Knows phantoms only, made by '{command}': it says nothing about a patient.",
        "Conhece apenas fantomas, feitos por '{command}': nada diz sobre um paciente.",
        "Solo conoce fantomas, hechos por '{command}': no dice nada de un paciente.",
    ),
    r"Trained on the data below and on nothing else; the figures hold for patients like these\.": (
        "Trained on the data below and on nothing else; the figures hold for patients like these.",
        "Treinado com os dados descritos no cartão do modelo e nada mais; os números valem para pacientes semelhantes.",
        "Entrenado con los datos descritos en la ficha del modelo y nada más; las cifras valen para pacientes así.",
    ),
}  # fmt: skip


def sentence(key: str, language: Language, **values: object) -> str:
    """Return a sentence with its values filled in."""
    return _SENTENCES[key][LANGUAGES.index(language)].format(**values)


def note_sentence(note: Note, language: Language) -> str:
    """Return what a note says."""
    return _NOTES[note.code][LANGUAGES.index(language)].format(count=note.count)


def limits_sentence(limits: str, language: Language) -> str:
    """Return the limits of a model; in the language where our own commands wrote them."""
    for pattern, said in _LIMITS.items():
        found = re.fullmatch(pattern, limits)
        if found is not None:
            return said[LANGUAGES.index(language)].format(**found.groupdict())
    return limits
