"""BentoML's side of `benchmarks/serving_frameworks.py`: `bentoml serve _bentoml_side:Scoring`."""

import bentoml
from _onnx_side import Model


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Scoring:
    def __init__(self):
        self.model = Model()

    @bentoml.api
    async def predict(self, features: list[float]) -> dict[str, float]:
        return {"fraud_probability": self.model(features)}
