"""Second thoughts on drawn genes with species, before geometry is paid for."""
