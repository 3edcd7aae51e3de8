"""tritonclient's side of `benchmarks/triton.py`; runs in Triton's own environment.

    python _triton_client_side.py HOST:PORT MODEL INPUT

Four threads send twenty requests each, once with a client for each thread and once with one for
all. Prints as JSON how many were answered.
"""

import json
import os
import sys
import threading

import numpy as np
import tritonclient.http as http

THREADS, REQUESTS, PATIENCE = 4, 20, 8.0


def main(url, model, name):
    print(json.dumps({how: answered(url, model, name, how) for how in ("one each", "shared")}))
    sys.stdout.flush()
    os._exit(0)  # a thread that hangs would hold up the end


def answered(url, model, name, how):
    shared = http.InferenceServerClient(url) if how == "shared" else None
    done = []

    def work():
        client = shared or http.InferenceServerClient(url)
        for _ in range(REQUESTS):
            tensor = http.InferInput(name, [1, 12], "FP32")
            tensor.set_data_from_numpy(np.zeros((1, 12), dtype=np.float32))
            client.infer(model, [tensor])
            done.append(1)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return len(done)


if __name__ == "__main__":
    main(*sys.argv[1:])
