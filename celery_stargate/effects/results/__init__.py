"""Results of produce tasks, as rows ``(key, value, expires)`` of Celery's Redis backend.

Two makers: Celery's backend itself (``write``), or a template of what it wrote once (``template``).
Two writers: the script that settles the message (``complete.lua``), or a pipeline (``write``).
``chords`` keeps what is counted after that.
``eligible`` tells for which results a row is all that Celery's tracer would do; ``rows`` decides.
"""
