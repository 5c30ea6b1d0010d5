"""What `reticula exams` and `reticula worklist` say to a reader, in each language."""

from pacs.codes import LANGUAGES, Language, translation
from pacs.meanings import PRIVATE_SCHEME

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
    "unread": ("new", "novo", "nuevo"),
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
    "sr": ("report", "relatório", "informe"),
    "summary": ("summary page", "página de resumo", "página de resumen"),
    "pdf": ("PDF", "PDF", "PDF"),
    "superseded-pages": ("mark of superseded pages", "marca de páginas substituídas", "marca de páginas sustituidas"),
    "superseded-maps": ("mark of superseded maps", "marca de mapas substituídos", "marca de mapas sustituidos"),
    "notice": ("notice", "aviso", "aviso"),
    "retraction": ("rejection note", "nota de rejeição", "nota de rechazo"),
    "True": ("yes", "sim", "sí"),
    "False": ("no", "não", "no"),
}
# Reason codes that no report states; those that one does stand with its codes.
_REASONS = {
    "retracted": ("retracted", "resultado retirado", "resultado retirado"),
    "retraction_refused": ("retraction_refused", "retirada recusada", "retirada rechazada"),
    "source_rejected": ("source_rejected", "imagens rejeitadas", "imágenes rechazadas"),
    "not_preferred": ("not_preferred", "outra série fala pelo estudo", "otra serie habla por el estudio"),
    "out_of_scope": ("out_of_scope", "fora do escopo", "fuera del alcance"),
    "excluded": ("excluded", "excluído por regra", "excluido por regla"),
    "patient_conflict": ("patient_conflict", "conflito de pacientes", "conflicto de pacientes"),
    "mixed_patients": ("mixed_patients", "mais de um paciente", "más de un paciente"),
    "mixed_series": ("mixed_series", "mais de uma série", "más de una serie"),
    "unreadable": ("unreadable", "ilegível", "ilegible"),
    "not_ct": ("not_ct", "não é TC", "no es TC"),
    "localizer": ("localizer", "localizador", "localizador"),
    "page": ("page", "páginas de dose ou protocolo", "páginas de dosis o protocolo"),
    "not_reportable": ("not_reportable", "não pode ser relatado", "no se puede informar"),
    "delivery_refused": ("delivery_refused", "entrega recusada", "entrega rechazada"),
    "identity_changed": ("identity_changed", "paciente diferente no PACS", "paciente distinto en el PACS"),
    "settings": ("settings", "configuração", "configuración"),
}
_SENTENCES = {
    "slices": ("{classified} of {total}", "{classified} de {total}", "{classified} de {total}"),
    "key_slice": ("key slice {rank}", "corte-chave {rank}", "corte clave {rank}"),
    "delivery": (
        "{object} to {destination}: {state} (attempts: {attempts})",
        "{object} para {destination}: {state} (tentativas: {attempts})",
        "{object} a {destination}: {state} (intentos: {attempts})",
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
    if language == "en":
        return code
    return translation(code, PRIVATE_SCHEME, language) or _said(_REASONS, code, language)


def sentence(key: str, language: Language, **values: object) -> str:
    """Return a sentence with its values."""
    return _said(_SENTENCES, key, language).format(**values)


def _said(table: dict[str, tuple[str, str, str]], key: str, language: Language) -> str:
    known = table.get(key)
    return key if known is None else known[LANGUAGES.index(language)]
