"""Events of jobs: published once by the control plane, heard by live status and metrics."""
