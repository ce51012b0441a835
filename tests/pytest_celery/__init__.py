"""The acceptance suite with pytest-celery: every part in a container of its own.

`tox -e pytest-celery` runs it. It has its own pytest.ini and conftest: the fixtures of
pytest-celery and of `celery.contrib.pytest` have the same names.
"""
