"""The data engine: photographs to perceived parts, to injected flaws, to a data set of curated pairs."""
