"""The agents: perception, planning and curation, with their prompts."""
