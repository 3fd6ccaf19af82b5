"""A model behind transformers' pipeline and Starlette, as people write it: a peer of the server.

A request is run in a thread of Starlette's pool, alone, as it came. It speaks the form of POST
/predict. Started by `serving_load.py`:

    --server "pipeline=python benchmarks/serving_peers/pipeline.py student --port {port}"
"""

from __future__ import annotations

import argparse
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import pipeline


def main() -> None:
    """Serve until a signal ends it."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("model", help="a PyTorch folder")
    made.add_argument("--port", type=int, required=True)
    made.add_argument("--max-length", type=int, default=None, help="tokens of a text")
    made.add_argument("--batch-size", type=int, default=8, help="rows that run at once")
    arguments = made.parse_args()
    classify: Any = pipeline("text-classification", model=arguments.model, top_k=None)
    settings = {"truncation": True, "batch_size": arguments.batch_size}
    if arguments.max_length is not None:
        settings["max_length"] = arguments.max_length

    async def predict(request: Request) -> JSONResponse:
        inputs = (await request.json())["inputs"]
        rows = [
            {"text": row[0], "text_pair": row[1]} if len(row) == 2 else row[0] for row in inputs
        ]
        return JSONResponse(await run_in_threadpool(classify, rows, **settings))

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"ready": True})

    routes = [Route("/predict", predict, methods=["POST"]), Route("/health", health)]
    uvicorn.run(Starlette(routes=routes), port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
