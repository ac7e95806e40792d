"""Commands that maintain the consent registry. Stages read it by `mlops/records/consent.py`, which has the rules."""
