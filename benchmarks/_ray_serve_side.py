"""Ray Serve's side of `benchmarks/serving_frameworks.py`: `python _ray_serve_side.py PORT`."""

import sys
import threading

import ray
from _onnx_side import Model
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=128)
class Scoring:
    def __init__(self):
        self.model = Model()

    async def __call__(self, request: Request):
        body = await request.json()
        return {"fraud_probability": self.model(body["features"])}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Scoring.bind(), route_prefix="/")
    threading.Event().wait()
