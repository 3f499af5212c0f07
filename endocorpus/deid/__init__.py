"""De-identification: what may be written, decided before a pixel is."""
