"""A digital spine with tumours whose truth is known: who the patients are, how they are built, how they are scanned."""
