"""Agents of synthesis: perception, planning and curation, with their prompts."""
