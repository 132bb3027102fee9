"""Files, photos, seeds, errors: what every other folder builds on."""
