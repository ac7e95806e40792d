"""SageMaker on this machine: it checks requests as SageMaker does, and really runs the jobs."""
