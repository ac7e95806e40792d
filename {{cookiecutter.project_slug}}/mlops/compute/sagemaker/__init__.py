"""Jobs on Amazon SageMaker: what `service` does, through boto3."""
