"""LitServe's side of `benchmarks/serving_frameworks.py`: `python _litserve_side.py PORT`."""

import sys

import litserve
from _onnx_side import Model


class Scoring(litserve.LitAPI):
    def setup(self, device):
        self.model = Model()

    def decode_request(self, request):
        return request["features"]

    def predict(self, features):
        return self.model(features)

    def encode_response(self, probability):
        return {"fraud_probability": probability}


if __name__ == "__main__":
    server = litserve.LitServer(Scoring(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="error",
        generate_client_file=False,
    )
