"""DICOM on the wire and in files: listener, spool, series, pixels, report, destinations."""
