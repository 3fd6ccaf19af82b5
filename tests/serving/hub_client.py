"""What `huggingface_hub.InferenceClient` makes of a server: `python hub_client.py URL TEXT`.

It runs under other versions of the client, whose environment has nothing of ours.
"""

import json
import sys

import huggingface_hub
from huggingface_hub import InferenceClient


def main(url: str, text: str) -> None:
    """Print the answers as JSON."""
    client = InferenceClient(url)

    def asked(*given: object, **more: object) -> object:
        try:
            found = client.text_classification(*given, **more)
        except Exception as error:
            return {"error": type(error).__name__, "message": str(error)}
        return [[one.label, one.score] for one in found]

    answers = {
        "version": huggingface_hub.__version__,
        "all": asked(text),
        "two": asked(text, top_k=2),
        "sigmoid": asked(text, function_to_apply="sigmoid"),
        "none": asked(text, function_to_apply="none"),
        "empty": asked(" "),
        "zero": asked(text, top_k=0),
    }
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
