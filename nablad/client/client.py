"""The calls of a service as methods."""

from nablad.client.dataset_calls import DatasetCalls
from nablad.client.job_calls import JobCalls
from nablad.client.model_calls import ModelCalls


class Client(JobCalls, DatasetCalls, ModelCalls):
    """A connection to a nablad service; may be shared by threads.

    Every method raises a ``NablaError`` when the service refuses or cannot be reached: see ``nablad.errors``.

    Attributes:
        address: Where the service is, as ``host:port``.
    """
