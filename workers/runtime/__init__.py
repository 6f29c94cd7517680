"""Process runtime: failpoints, CPU scheduling, usage, numeric environment, concurrency helpers."""
