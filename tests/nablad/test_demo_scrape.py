"""A look at the metrics."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from nablad.demo import scrape

PAGE = b"""# HELP nablad_job_training_cost Mean cost.
nablad_job_training_cost{job_id="mine"} 0.25
nablad_job_training_cost{job_id="other"} 0.5
nablad_job_steps_total{job_id="mine"} 7
"""


@pytest.fixture
def url():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *_):
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()
        thread.join()


def test_only_the_asked_metrics_of_the_job_are_given(url):
    """Neither other jobs nor other metrics nor comments come through."""
    assert list(scrape(url, "mine", ["nablad_job_training_cost"])) == ['nablad_job_training_cost{job_id="mine"} 0.25']
