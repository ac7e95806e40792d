"""The backend `sandbox`: jobs on this machine, as on SageMaker and at no cost."""
