"""Events of jobs: published once by the control plane, received by live status and metrics."""
