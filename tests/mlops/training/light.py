"""Import it before Fabric, which imports torchmetrics where that is installed: three quarters of the time it takes.

A project does not have it; here it comes with what other tests need.
"""

import sys

sys.modules["torchmetrics"] = None  # type: ignore[assignment]
