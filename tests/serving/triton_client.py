"""What `tritonclient.http` makes of a server: `python triton_client.py ADDRESS MODEL TEXT...`."""

import json
import sys

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException


def main(address: str, model: str, *texts: str) -> None:
    """Print the answers as JSON."""
    client = InferenceServerClient(address)
    tensor = InferInput("text", [len(texts)], "BYTES")
    values = np.array(texts, dtype=object)

    def plain(array: np.ndarray) -> object:
        found = array.tolist()
        return [each.decode() if isinstance(each, bytes) else each for each in found]

    def asked(is_binary: bool) -> dict[str, object]:
        tensor.set_data_from_numpy(values, binary_data=is_binary)
        names = ("label", "probabilities", "logits", "tokens", "truncated", "abstained")
        outputs = [InferRequestedOutput(name, binary_data=is_binary) for name in names]
        answer = client.infer(model, [tensor], outputs=outputs, request_id="17")
        outputs = [InferRequestedOutput("probabilities", binary_data=is_binary, class_count=2)]
        best = client.infer(model, [tensor], outputs=outputs).as_numpy("probabilities")
        return {
            "id": answer.get_response()["id"],
            **{name: plain(answer.as_numpy(name)) for name in names},
            "best": [plain(row) for row in best],
        }

    def refused(name: str, **more: object) -> str:
        try:
            client.infer(name, [tensor], **more)
        except InferenceServerException as error:
            return f"{error.status()} {error.message()}"
        return "answered"

    answers = {
        "binary": asked(True),
        "json": asked(False),
        "ready": [client.is_server_live(), client.is_server_ready(), client.is_model_ready(model)],
        "no model": [client.is_model_ready("third"), refused("third")],
        "no version": refused(model, model_version="9"),
        "compressed": refused(model, request_compression_algorithm="gzip"),
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata(model),
        "index": client.get_model_repository_index(),
    }
    client.close()
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
