"""Variables at the top of a board."""

from typing import Final

from grafana_foundation_sdk.builders.dashboard import DatasourceVariable, QueryVariable
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableOption, VariableRefresh, VariableSort

__all__ = ["PROMETHEUS", "data_source", "instance", "job_id"]

PROMETHEUS: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
"""Chosen data source of all queries."""


def data_source() -> DatasourceVariable:
    """Returns the choice of a Prometheus."""
    return DatasourceVariable("datasource").label("Data source").type("prometheus")


def instance() -> QueryVariable:
    """Returns the choice of services: one, several or all."""
    everything = VariableOption(selected=True, text="All", value="$__all")
    variable = _query("instance", "label_values(nablad_build_info, instance)").label("Service")
    return variable.multi(True).include_all(True).all_value(".*").current(everything).sort(VariableSort.NATURAL_ASC)


def job_id() -> QueryVariable:
    """Returns the choice of a job among those in the time range."""
    query = 'label_values(nablad_job_epochs{instance=~"$instance"}, job_id)'
    return _query("job_id", query).label("Job").sort(VariableSort.NATURAL_ASC)


def _query(name: str, query: str) -> QueryVariable:
    """Returns a variable that is refreshed with the time range, so that jobs of another day can be chosen."""
    variable = QueryVariable(name).datasource(PROMETHEUS).query(query)
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
