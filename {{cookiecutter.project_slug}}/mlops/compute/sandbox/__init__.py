"""The backend `sandbox`: jobs on this machine, at no cost."""
