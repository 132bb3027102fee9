"""Questions to vision-language models, one module for each kind: wording, schema and typed answer."""
