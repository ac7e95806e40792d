"""Whose records are in which model: asked of MLflow, the data manifests, and the consent registry.

runs -> manifests -> index -> exposure -> verdicts -> audit
"""

from .verbs import verbs

groups = (verbs,)
