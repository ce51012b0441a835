"""Show the main job: ``python -m examples.demo``."""
