"""Task vectors: a specialist minus its base, their magnitude spectra and exact quantiles."""
