"""Somebody withdraws: their records leave the data, and the model that knows them goes out of use.

revoke -> plan -> dvc repro -> promote -> verify, each by its public command's function, and a report of it all
"""
