"""What `reticula exams` and `reticula worklist` say to a reader, in each language."""

from pacs.codes import LANGUAGES, PRIVATE_SCHEME, Language, translation

# By the names that the JSON has: (English, Brazilian Portuguese, Spanish).
_NAMES = {
    "study_uid": ("study", "estudo", "estudio"),
    "series_uid": ("series", "série", "serie"),
    "revision": ("revision", "revisão", "revisión"),
    "patient_id": ("patient", "paciente", "paciente"),
    "state": ("state", "estado", "estado"),
    "reason_code": ("reason", "motivo", "motivo"),
    "reason": ("in detail", "em detalhe", "en detalle"),
    "verdict": ("result", "resultado", "resultado"),
    "certainty": ("certainty", "certeza", "certeza"),
    "probabilities": ("probabilities", "probabilidades", "probabilidades"),
    "slice_count": ("slices", "cortes", "cortes"),
    "slices_classified": ("classified slices", "cortes classificados", "cortes clasificados"),
    "completeness": ("completeness", "completude", "completitud"),
    "software": ("software", "software", "software"),
    "model": ("model", "modelo", "modelo"),
    "bundle_sha256": ("model sha256", "sha256 do modelo", "sha256 del modelo"),
    "received_at": ("received", "recebido", "recibido"),
    "classified_at": ("classified", "classificado", "clasificado"),
    "reported_at": ("reported", "relatado", "informado"),
    "verdict_reason": ("why so", "por quê", "por qué"),
    "distance": ("distance", "distância", "distancia"),
    "label": ("label", "rótulo", "etiqueta"),
    "description": ("description", "descrição", "descripción"),
    "kernel": ("kernel", "kernel", "kernel"),
    "thickness_mm": ("thickness (mm)", "espessura (mm)", "grosor (mm)"),
    "urgent": ("urgent", "urgente", "urgente"),
    "expected_count": ("expected slices", "cortes esperados", "cortes esperados"),
    "scope_rule": ("scope rule", "regra de indicação", "regla de indicación"),
    "shadow": ("shadow", "sem envio", "sin envío"),
    "withdrawn_at": ("taken back", "retirado", "retirado"),
    "notes": ("notes", "observações", "observaciones"),
    "delivery": ("delivery", "entrega", "entrega"),
    "probability": ("probability", "probabilidade", "probabilidad"),
    "number": ("number", "número", "número"),
    "ct_of": ("CT of", "TC de", "TC de"),
    "instance": ("instance", "instância", "instancia"),
    "position_mm": ("position (mm)", "posição (mm)", "posición (mm)"),
    "lung": ("lung", "pulmão", "pulmón"),
    "note": ("note", "observação", "observación"),
}
_VALUES = {
    "receiving": ("receiving", "recebendo", "recibiendo"),
    "queued": ("queued", "na fila", "en cola"),
    "classifying": ("classifying", "classificando", "clasificando"),
    "classified": ("classified", "classificado", "clasificado"),
    "reported": ("reported", "relatado", "informado"),
    "rejected": ("rejected", "rejeitado", "rechazado"),
    "failed": ("failed", "falhou", "falló"),
    "pending": ("pending", "pendente", "pendiente"),
    "delivered": ("delivered", "entregue", "entregado"),
    "refused": ("refused", "recusado", "rechazado"),
    "True": ("yes", "sim", "sí"),
    "False": ("no", "não", "no"),
}
_SENTENCES = {
    "slices": ("{classified} of {total}", "{classified} de {total}", "{classified} de {total}"),
    "key_slice": ("key slice {rank}", "corte-chave {rank}", "corte clave {rank}"),
    "delivery": (
        "{object} to {destination}: {state} after {attempts} attempts",
        "{object} para {destination}: {state} após {attempts} tentativas",
        "{object} a {destination}: {state} tras {attempts} intentos",
    ),
    "left_out": (
        "Series {uid} is left out: {why}",
        "A série {uid} ficou de fora: {why}",
        "Se omite la serie {uid}: {why}",
    ),
    "no_exams": ("There are no exams.", "Não há exames.", "No hay exámenes."),
}


def name(key: str, language: Language) -> str:
    """Return what a field is called; a key that the table does not hold (a class of the model) is its own name."""
    return _said(_NAMES, key, language)


def value(word: str, language: Language) -> str:
    """Return a state, or what else stands as a word in the JSON."""
    return _said(_VALUES, word, language)


def reason(code: str | None, language: Language) -> str:
    """Return why an exam has no result, or no decided one; in English the code, which scripts know too."""
    if code is None:
        return ""
    return code if language == "en" else translation(code, PRIVATE_SCHEME, language) or code


def sentence(key: str, language: Language, **values: object) -> str:
    """Return a sentence with its values."""
    return _said(_SENTENCES, key, language).format(**values)


def _said(table: dict[str, tuple[str, str, str]], key: str, language: Language) -> str:
    known = table.get(key)
    return key if known is None else known[LANGUAGES.index(language)]
