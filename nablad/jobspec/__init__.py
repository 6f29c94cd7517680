"""Everything about a `JobSpec` that client and service both need.

A job file goes through `load`; or through `parse` and `violations`, for what could be read of a wrong one. A submitted
spec goes through `violations`, `complete` for its train data set, `violations` again and `data_violations`.
"""

from nablad.jobspec.completion import complete
from nablad.jobspec.constraints import violations
from nablad.jobspec.data_rules import data_violations
from nablad.jobspec.job_file import load, parse, to_yaml
from nablad.jobspec.merging import merge
from nablad.jobspec.names import name_of, names, value_of
from nablad.jobspec.outputs import ALLOWED_OUTPUTS, output_allowed

__all__ = [
    "ALLOWED_OUTPUTS",
    "complete",
    "data_violations",
    "load",
    "merge",
    "name_of",
    "names",
    "output_allowed",
    "parse",
    "to_yaml",
    "value_of",
    "violations",
]
