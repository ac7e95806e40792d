"""Whose records are in which model: asked of MLflow, the data manifests, and the consent registry.

runs -> manifests -> index -> exposure -> verdicts -> audit
"""

from .cli import verbs

groups = (verbs,)
