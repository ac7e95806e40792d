"""Hides torchmetrics, which other tests need and a project does not have: Lightning Fabric imports it where it can."""

import sys

sys.modules["torchmetrics"] = None  # type: ignore[assignment]
