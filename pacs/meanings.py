"""What the codes of our objects mean in each language. PS3.16 chapter 8; sources in the comments."""

from collections.abc import Mapping

from pacs.private_meanings import PRIVATE_MEANINGS, PRIVATE_SCHEME

__all__ = ["MEANINGS", "PRIVATE_SCHEME", "Key"]

Key = tuple[str, str]

# (code, scheme): (English, Brazilian Portuguese, Spanish). English as in PS3.16, RadLex and SNOMED CT.
_STANDARD: Mapping[Key, tuple[str, str, str]] = {
    # The tree of TID 1500 and what it draws in
    ("126000", "DCM"): (
        "Imaging Measurement Report",
        "Relatório de medidas em imagem",
        "Informe de mediciones en imagen",
    ),
    ("121049", "DCM"): (
        "Language of Content Item and Descendants",
        "Idioma do conteúdo",
        "Idioma del contenido",
    ),
    ("121005", "DCM"): ("Observer Type", "Tipo de observador", "Tipo de observador"),
    ("121007", "DCM"): ("Device", "Dispositivo", "Dispositivo"),
    ("121012", "DCM"): (
        "Device Observer UID",
        "UID do dispositivo observador",
        "UID del dispositivo observador",
    ),
    ("121013", "DCM"): (
        "Device Observer Name",
        "Nome do dispositivo observador",
        "Nombre del dispositivo observador",
    ),
    ("121014", "DCM"): (
        "Device Observer Manufacturer",
        "Fabricante do dispositivo observador",
        "Fabricante del dispositivo observador",
    ),
    ("121015", "DCM"): (
        "Device Observer Model Name",
        "Modelo do dispositivo observador",
        "Modelo del dispositivo observador",
    ),
    ("121016", "DCM"): (
        "Device Observer Serial Number",
        "Número de série do dispositivo observador",
        "Número de serie del dispositivo observador",
    ),
    ("121058", "DCM"): ("Procedure Reported", "Procedimento relatado", "Procedimiento informado"),
    ("111028", "DCM"): ("Image Library", "Biblioteca de imagens", "Biblioteca de imágenes"),
    ("126200", "DCM"): (
        "Image Library Group",
        "Grupo da biblioteca de imagens",
        "Grupo de la biblioteca de imágenes",
    ),
    ("121139", "DCM"): ("Modality", "Modalidade", "Modalidad"),
    ("CT", "DCM"): ("Computed Tomography", "Tomografia computadorizada", "Tomografía computarizada"),
    ("110910", "DCM"): ("Pixel Data Rows", "Linhas de pixels", "Filas de píxeles"),
    ("110911", "DCM"): ("Pixel Data Columns", "Colunas de pixels", "Columnas de píxeles"),
    ("111026", "DCM"): (
        "Horizontal Pixel Spacing",
        "Espaçamento horizontal entre pixels",
        "Espaciado horizontal entre píxeles",
    ),
    ("111066", "DCM"): (
        "Vertical Pixel Spacing",
        "Espaçamento vertical entre pixels",
        "Espaciado vertical entre píxeles",
    ),
    ("112225", "DCM"): ("Slice Thickness", "Espessura do corte", "Grosor de corte"),
    ("110901", "DCM"): (
        "Image Position (Patient) X",
        "Posição da imagem (paciente) X",
        "Posición de la imagen (paciente) X",
    ),
    ("110902", "DCM"): (
        "Image Position (Patient) Y",
        "Posição da imagem (paciente) Y",
        "Posición de la imagen (paciente) Y",
    ),
    ("110903", "DCM"): (
        "Image Position (Patient) Z",
        "Posição da imagem (paciente) Z",
        "Posición de la imagen (paciente) Z",
    ),
    ("110904", "DCM"): (
        "Image Orientation (Patient) Row X",
        "Orientação da imagem (paciente) linha X",
        "Orientación de la imagen (paciente) fila X",
    ),
    ("110905", "DCM"): (
        "Image Orientation (Patient) Row Y",
        "Orientação da imagem (paciente) linha Y",
        "Orientación de la imagen (paciente) fila Y",
    ),
    ("110906", "DCM"): (
        "Image Orientation (Patient) Row Z",
        "Orientação da imagem (paciente) linha Z",
        "Orientación de la imagen (paciente) fila Z",
    ),
    ("110907", "DCM"): (
        "Image Orientation (Patient) Column X",
        "Orientação da imagem (paciente) coluna X",
        "Orientación de la imagen (paciente) columna X",
    ),
    ("110908", "DCM"): (
        "Image Orientation (Patient) Column Y",
        "Orientação da imagem (paciente) coluna Y",
        "Orientación de la imagen (paciente) columna Y",
    ),
    ("110909", "DCM"): (
        "Image Orientation (Patient) Column Z",
        "Orientação da imagem (paciente) coluna Z",
        "Orientación de la imagen (paciente) columna Z",
    ),
    ("126010", "DCM"): ("Imaging Measurements", "Medidas em imagem", "Mediciones en imagen"),
    ("125007", "DCM"): ("Measurement Group", "Grupo de medidas", "Grupo de mediciones"),
    ("112039", "DCM"): (
        "Tracking Identifier",
        "Identificador de rastreamento",
        "Identificador de seguimiento",
    ),
    ("112040", "DCM"): (
        "Tracking Unique Identifier",
        "Identificador único de rastreamento",
        "Identificador único de seguimiento",
    ),
    ("121071", "DCM"): ("Finding", "Achado", "Hallazgo"),
    ("363698007", "SCT"): ("Finding Site", "Local do achado", "Localización del hallazgo"),
    ("272741003", "SCT"): ("Laterality", "Lateralidade", "Lateralidad"),
    ("111030", "DCM"): ("Image Region", "Região da imagem", "Región de la imagen"),
    ("260753009", "SCT"): ("Source", "Fonte", "Fuente"),
    ("111001", "DCM"): ("Algorithm Name", "Nome do algoritmo", "Nombre del algoritmo"),
    ("111002", "DCM"): ("Algorithm Parameters", "Parâmetros do algoritmo", "Parámetros del algoritmo"),
    ("111003", "DCM"): ("Algorithm Version", "Versão do algoritmo", "Versión del algoritmo"),
    ("122405", "DCM"): ("Algorithm Manufacturer", "Fabricante do algoritmo", "Fabricante del algoritmo"),
    ("111023", "DCM"): ("Impression", "Impressão", "Impresión"),
    ("111013", "DCM"): ("Certainty of impression", "Certeza da impressão", "Certeza de la impresión"),
    ("111012", "DCM"): ("Certainty of Finding", "Certeza do achado", "Certeza del hallazgo"),
    ("109102", "DCM"): ("Processing Equipment", "Equipamento de processamento", "Equipo de procesamiento"),
    ("121322", "DCM"): (
        "Source image for image processing operation",
        "Imagem de origem do processamento",
        "Imagen de origen del procesamiento",
    ),
    ("18748-4", "LN"): (
        "Diagnostic imaging study",
        "Estudo de diagnóstico por imagem",
        "Estudio de diagnóstico por imagen",
    ),
    # Languages (RFC 5646) and procedure (LOINC)
    ("en", "RFC5646"): ("English", "Inglês", "Inglés"),
    ("pt-BR", "RFC5646"): ("Portuguese (Brazil)", "Português (Brasil)", "Portugués (Brasil)"),
    ("es", "RFC5646"): ("Spanish", "Espanhol", "Español"),
    ("24627-2", "LN"): ("CT Chest", "TC de tórax", "TC de tórax"),
    ("25045-6", "LN"): ("CT unspecified body region", "TC de região não especificada", "TC de región no especificada"),
    # The notice that there is no result, and rejection notes (IHE RAD TF-1, Imaging Object Change Management)
    ("55110-1", "LN"): ("Conclusions", "Conclusões", "Conclusiones"),
    ("121077", "DCM"): ("Conclusion", "Conclusão", "Conclusión"),
    ("111065", "DCM"): ("Summary of Analyses", "Resumo das análises", "Resumen de los análisis"),
    ("111224", "DCM"): ("Failed", "Falhou", "Falló"),
    ("111225", "DCM"): ("Not Attempted", "Não tentado", "No intentado"),
    ("113001", "DCM"): (
        "Rejected for Quality Reasons",
        "Rejeitado por motivos de qualidade",
        "Rechazado por motivos de calidad",
    ),
    ("113037", "DCM"): (
        "Rejected for Patient Safety Reasons",
        "Rejeitado por motivos de segurança do paciente",
        "Rechazado por motivos de seguridad del paciente",
    ),
    ("113038", "DCM"): (
        "Incorrect Modality Worklist Entry",
        "Entrada incorreta na lista de trabalho",
        "Entrada incorrecta en la lista de trabajo",
    ),
    ("113012", "DCM"): ("Key Object Description", "Descrição dos objetos", "Descripción de los objetos"),
    # Findings and sites
    ("RID5333", "RADLEX"): (
        "Usual interstitial pneumonia",
        "Pneumonia intersticial usual",
        "Neumonía intersticial usual",
    ),
    ("RID5341", "RADLEX"): (
        "Nonspecific interstitial pneumonia",
        "Pneumonia intersticial não específica",
        "Neumonía intersticial no específica",
    ),
    ("17621005", "SCT"): ("Normal", "Normal", "Normal"),
    ("74964007", "SCT"): ("Other", "Outro", "Otro"),
    ("82334004", "SCT"): ("Indeterminate", "Indeterminado", "Indeterminado"),
    ("233703007", "SCT"): (
        "Interstitial lung disease",
        "Doença pulmonar intersticial",
        "Enfermedad pulmonar intersticial",
    ),
    ("39607008", "SCT"): ("Lung", "Pulmão", "Pulmón"),
    ("51440002", "SCT"): ("Right and left", "Direito e esquerdo", "Derecho e izquierdo"),
    # Units
    ("%", "UCUM"): ("percent", "por cento", "por ciento"),
    ("mm", "UCUM"): ("millimeter", "milímetro", "milímetro"),
    ("{slices}", "UCUM"): ("slices", "cortes", "cortes"),
    ("{pixels}", "UCUM"): ("Pixels", "Pixels", "Píxeles"),
    ("{-1:1}", "UCUM"): ("{-1:1}", "{-1:1}", "{-1:1}"),
}
MEANINGS: Mapping[Key, tuple[str, str, str]] = {**_STANDARD, **PRIVATE_MEANINGS}
