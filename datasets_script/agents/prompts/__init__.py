"""What vision-language models are asked, one module for each kind of question: wording, schema and typed answer."""
