"""The client of a nablad service.

with Client() as client:
    job = client.submit(spec)
    for update in client.watch(job.job_id):
        ...
"""

from nablad.client.dataset_calls import DatasetCalls
from nablad.client.job_calls import JobCalls
from nablad.client.model_calls import ModelCalls, PredictionRun

__all__ = ["Client", "PredictionRun"]


class Client(JobCalls, DatasetCalls, ModelCalls):
    """A connection to a nablad service; threads may share it.

    Every method raises a ``NablaError`` if the service refuses or cannot be reached: see ``nablad.errors``.

    Attributes:
        address: Address of the service, as ``host:port``.
    """
