"""MLServer's side of `benchmarks/serving_frameworks.py`: `python _mlserver_side.py PORT`.

It speaks the Open Inference Protocol, version 2: rows come as tensors and go as tensors.
"""

import asyncio
import sys

from _onnx_side import Model
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Scoring(MLModel):
    async def load(self):
        self.model = Model()
        return True

    async def predict(self, payload):
        features = NumpyCodec.decode_input(payload.inputs[0])[0]
        answer = {"name": "fraud_probability", "shape": [1], "datatype": "FP64"}
        output = {**answer, "data": [self.model(features)]}
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main(port):
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=port,
        grpc_port=port + 1,
        metrics_endpoint=None,
        parallel_workers=0,  # the model in the process that answers: without a hop it is faster
        load_models_at_startup=False,
    )
    server = MLServer(settings)
    await server.start([ModelSettings(name="scoring", implementation=Scoring)])


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
