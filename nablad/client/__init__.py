"""The client of a nablad service.

with Client() as client:
    job = client.submit(spec)
    for update in client.watch(job.job_id):
        ...
"""

from nablad.client.client import Client
from nablad.client.predicting import PredictionRun

__all__ = ["Client", "PredictionRun"]
