"""Run the emulator by hand.

    python -m tests.aws.emulator --s3 http://127.0.0.1:8333 --image 123456789012.dkr.ecr=.venv/bin/python

Everything that stands around it too: make aws-sandbox
"""
