"""Registered versions: which there are, which is in use, and how a wiped MLflow gets them back."""
