"""SageMaker backend: jobs on Amazon SageMaker, through boto3."""
