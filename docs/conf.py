"""How Sphinx builds the site: ``make docs``, or ``tox -e site``."""

import os
import sys
from importlib.metadata import version as _version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "celery_stargate.contrib.django"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()

project = "celery_stargate"
author = "the authors of celery_stargate"
project_copyright = "the authors of celery_stargate; BSD 3-Clause"
release = version = _version("celery-stargate")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "tools.site.extension",
]
exclude_patterns = ["_static"]
html_extra_path = ["grafana_dashboard.json"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_fence_as_directive = ["mermaid"]
# Headings have the anchors that GitHub gives them, so that a link works in both.
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
add_module_names = False
default_role = "code"

# The names of other projects in the reference become links where their inventories can be
# fetched. A build without the internet leaves them out, and must not fail for it.
intersphinx_mapping = (
    {
        "python": ("https://docs.python.org/3", None),
        "celery": ("https://docs.celeryq.dev/en/stable", None),
        "kombu": ("https://docs.celeryq.dev/projects/kombu/en/stable", None),
        "django": (
            "https://docs.djangoproject.com/en/stable",
            "https://docs.djangoproject.com/en/stable/_objects/",
        ),
        "redis": ("https://redis.readthedocs.io/en/stable", None),
    }
    if os.environ.get("STARGATE_INTERSPHINX")
    else {}
)
intersphinx_timeout = 20

# A prompt is shown and not copied.
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"celery_stargate {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "friendly"
pygments_dark_style = "native"
