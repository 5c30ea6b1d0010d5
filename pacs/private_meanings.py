"""Our own codes, for what no standard code was found, and what they mean in each language."""

from collections.abc import Mapping

PRIVATE_SCHEME = "99RETICULA"

# (code, scheme): (English, Brazilian Portuguese, Spanish), at most 64 characters each (PS3.5 section 6.2, LO).
PRIVATE_MEANINGS: Mapping[tuple[str, str], tuple[str, str, str]] = {
    ("PROB-UIP", PRIVATE_SCHEME): (
        "Probability of UIP pattern",
        "Probabilidade do padrão PIU",
        "Probabilidad del patrón NIU",
    ),
    ("PROB-NSIP", PRIVATE_SCHEME): (
        "Probability of NSIP pattern",
        "Probabilidade do padrão PINE",
        "Probabilidad del patrón NINE",
    ),
    ("PROB-normal", PRIVATE_SCHEME): (
        "Probability of a normal lung",
        "Probabilidade de pulmão normal",
        "Probabilidad de pulmón normal",
    ),
    ("PROB-other", PRIVATE_SCHEME): (
        "Probability of another disease",
        "Probabilidade de outra doença",
        "Probabilidad de otra enfermedad",
    ),
    ("SLICES-normal", PRIVATE_SCHEME): (
        "Slices called normal",
        "Cortes classificados como normais",
        "Cortes clasificados como normales",
    ),
    ("SLICES-other", PRIVATE_SCHEME): (
        "Slices called another disease",
        "Cortes classificados como outra doença",
        "Cortes clasificados como otra enfermedad",
    ),
    ("SLICES", PRIVATE_SCHEME): ("Slices classified", "Cortes classificados", "Cortes clasificados"),
    ("SLICES-RECEIVED", PRIVATE_SCHEME): ("Slices in the series", "Cortes na série", "Cortes en la serie"),
    ("SLICES-UIP", PRIVATE_SCHEME): (
        "Slices called UIP",
        "Cortes classificados como PIU",
        "Cortes clasificados como NIU",
    ),
    ("SLICES-NSIP", PRIVATE_SCHEME): (
        "Slices called NSIP",
        "Cortes classificados como PINE",
        "Cortes clasificados como NINE",
    ),
    ("COMPLETENESS", PRIVATE_SCHEME): (
        "Completeness of the series",
        "Completude da série",
        "Completitud de la serie",
    ),
    ("SCOPE", PRIVATE_SCHEME): ("Indication", "Indicação", "Indicación"),
    ("not_confirmed", PRIVATE_SCHEME): (
        "Nobody told that systemic sclerosis is present",
        "Ninguém informou que há esclerose sistêmica",
        "Nadie informó de que haya esclerosis sistémica",
    ),
    ("by_rule", PRIVATE_SCHEME): (
        "Chosen by a rule of the hospital",
        "Escolhido por uma regra do hospital",
        "Elegido por una regla del hospital",
    ),
    ("REASON", PRIVATE_SCHEME): (
        "Reason of abstention",
        "Motivo da abstenção",
        "Motivo de la abstención",
    ),
    # Names of numbers, too: a viewer draws nothing else of an abstention.
    ("NO-VERDICT", PRIVATE_SCHEME): (
        "No verdict, not for diagnosis",
        "Sem veredito, não usar para diagnóstico",
        "Sin veredicto, no usar para diagnóstico",
    ),
    ("too_little_lung", PRIVATE_SCHEME): (
        "Too little of the lungs could be classified",
        "Pouco dos pulmões pôde ser classificado",
        "Se pudo clasificar muy poco de los pulmones",
    ),
    ("unguarded", PRIVATE_SCHEME): (
        "The model does not know what is strange to it",
        "O modelo não sabe o que lhe é estranho",
        "El modelo no sabe qué le es extraño",
    ),
    ("study_protocol", PRIVATE_SCHEME): (
        "The model reproduces a study and does not serve",
        "O modelo reproduz um estudo e não serve para uso",
        "El modelo reproduce un estudio y no sirve para uso",
    ),
    ("too_few_patients", PRIVATE_SCHEME): (
        "The model was calibrated on too few patients to know anybody",
        "Modelo calibrado em poucos pacientes: não conhece ninguém",
        "Modelo calibrado con pocos pacientes: no conoce a nadie",
    ),
    ("demo_model", PRIVATE_SCHEME): (
        "The model knows phantoms only",
        "O modelo só conhece fantomas",
        "El modelo solo conoce fantomas",
    ),
    ("DOUBT", PRIVATE_SCHEME): ("Caution about the images", "Atenção às imagens", "Atención a las imágenes"),
    ("thick_slices", PRIVATE_SCHEME): (
        "Slices thicker than 2.5 mm: too thick to judge a pattern",
        "Cortes acima de 2,5 mm: espessos demais para julgar o padrão",
        "Cortes de más de 2,5 mm: muy gruesos para juzgar el patrón",
    ),
    ("other_kernel", PRIVATE_SCHEME): (
        "The reconstruction kernel is not one for lungs",
        "O kernel de reconstrução não é de pulmão",
        "El kernel de reconstrucción no es de pulmón",
    ),
    ("unknown_kernel", PRIVATE_SCHEME): (
        "The images do not say with which kernel they were made",
        "As imagens não informam o kernel de reconstrução",
        "Las imágenes no indican el kernel de reconstrucción",
    ),
    ("few_slices", PRIVATE_SCHEME): (
        "Too few slices show enough lung",
        "Poucos cortes mostram pulmão suficiente",
        "Pocos cortes muestran pulmón suficiente",
    ),
    ("unfamiliar", PRIVATE_SCHEME): (
        "Unlike the exams that the model was trained on",
        "Diferente dos exames com que o modelo foi treinado",
        "Distinto de los exámenes con que se entrenó el modelo",
    ),
    ("undecided", PRIVATE_SCHEME): (
        "No pattern is probable enough",
        "Nenhum padrão é suficientemente provável",
        "Ningún patrón es suficientemente probable",
    ),
    ("quiet_period", PRIVATE_SCHEME): (
        "No instance for the quiet period",
        "Nenhuma instância no período de espera",
        "Ninguna instancia en el periodo de espera",
    ),
    ("incomplete", PRIVATE_SCHEME): (
        "Fewer instances came than the PACS has",
        "Chegaram menos instâncias do que o PACS tem",
        "Llegaron menos instancias de las que tiene el PACS",
    ),
    ("maximum_wait", PRIVATE_SCHEME): (
        "The maximum wait was over",
        "O tempo máximo de espera acabou",
        "Terminó la espera máxima",
    ),
    ("expected_count", PRIVATE_SCHEME): (
        "All instances that the PACS names",
        "Todas as instâncias indicadas pelo PACS",
        "Todas las instancias que indica el PACS",
    ),
    ("reprocess", PRIVATE_SCHEME): (
        "Classified again by request",
        "Reclassificado a pedido",
        "Reclasificado a petición",
    ),
    # Why an exam has no result: the reason codes of series
    ("NO-RESULT", PRIVATE_SCHEME): ("Why there is no result", "Por que não há resultado", "Por qué no hay resultado"),
    ("too_few_slices", PRIVATE_SCHEME): (
        "The series has too few slices",
        "A série tem poucos cortes",
        "La serie tiene pocos cortes",
    ),
    ("no_lungs", PRIVATE_SCHEME): (
        "No slice shows enough lung",
        "Nenhum corte mostra pulmão suficiente",
        "Ningún corte muestra pulmón suficiente",
    ),
    ("not_axial", PRIVATE_SCHEME): (
        "The images are not axial",
        "As imagens não são axiais",
        "Las imágenes no son axiales",
    ),
    ("projection", PRIVATE_SCHEME): (
        "The series is a projection, not slices",
        "A série é uma projeção, não cortes",
        "La serie es una proyección, no cortes",
    ),
    ("mixed_orientation", PRIVATE_SCHEME): (
        "The images have more than one orientation",
        "As imagens têm mais de uma orientação",
        "Las imágenes tienen más de una orientación",
    ),
    ("no_geometry", PRIVATE_SCHEME): (
        "Images lack position, orientation or pixel spacing",
        "Faltam posição, orientação ou espaçamento nas imagens",
        "Faltan posición, orientación o espaciado en las imágenes",
    ),
    ("undecodable", PRIVATE_SCHEME): (
        "The pixels of the images cannot be decoded",
        "Os pixels das imagens não podem ser decodificados",
        "Los píxeles de las imágenes no se pueden decodificar",
    ),
    ("missing_files", PRIVATE_SCHEME): (
        "Received images are not at hand any more",
        "As imagens recebidas não estão mais disponíveis",
        "Las imágenes recibidas ya no están disponibles",
    ),
    ("memory", PRIVATE_SCHEME): (
        "The series is too large",
        "A série é grande demais",
        "La serie es demasiado grande",
    ),
    ("error", PRIVATE_SCHEME): (
        "The classification failed",
        "A classificação falhou",
        "La clasificación falló",
    ),
    ("worker_died", PRIVATE_SCHEME): (
        "The classification broke off several times",
        "A classificação foi interrompida várias vezes",
        "La clasificación se interrumpió varias veces",
    ),
    ("report_failed", PRIVATE_SCHEME): (
        "The report of the result could not be made",
        "O relatório do resultado não pôde ser feito",
        "El informe del resultado no se pudo hacer",
    ),
}
