"""Job specs, for client and service: job files, defaults, rules.

`load` reads and checks a job file. `check` completes a spec and finds everything that is wrong with it: a client calls
it without data sets, the service with the registered ones.
"""

from nablad.jobspec.check import Checked, JobDatasets, check
from nablad.jobspec.defaults import complete
from nablad.jobspec.job_file import load, parse, to_yaml
from nablad.jobspec.names import name_of, names, value_of
from nablad.jobspec.outputs import ALLOWED_OUTPUTS, output_allowed
from nablad.jobspec.violations import merge

__all__ = [
    "ALLOWED_OUTPUTS",
    "Checked",
    "JobDatasets",
    "check",
    "complete",
    "load",
    "merge",
    "name_of",
    "names",
    "output_allowed",
    "parse",
    "to_yaml",
    "value_of",
]
