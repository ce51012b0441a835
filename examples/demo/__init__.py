"""The main job before one's eyes: ``python -m examples.demo``."""
