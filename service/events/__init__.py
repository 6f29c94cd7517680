"""Events of jobs: live status and watches."""
