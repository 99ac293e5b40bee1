"""A stand-in for `vllm serve`: OpenAI's routes, with the key from VLLM_API_KEY. Its model's one answer is its command line."""

import argparse
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path != "/v1/models":
            self.answer(404, {"detail": "Not Found"})
        elif self.is_allowed():
            self.answer(
                200, {"object": "list", "data": [{"id": self.server.model, "object": "model", "owned_by": "vllm"}]}
            )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.is_allowed():
            return
        text = " ".join(sys.argv[1:])
        choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        whole = {"id": "c", "object": "text_completion", "created": 0, "model": body["model"], "choices": [choice]}
        if not body.get("stream"):
            self.answer(200, whole | {"usage": usage})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in (whole, whole | {"choices": [], "usage": usage}):
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def is_allowed(self) -> bool:
        allowed = self.headers["Authorization"] == f"Bearer {os.environ['VLLM_API_KEY']}"
        if not allowed:
            self.answer(401, {"error": "Unauthorized"})
        return allowed

    def answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    args, _ = parser.parse_known_args()
    if "broken" in args.model:
        sys.exit("OSError: broken is not a local folder and is not a valid model identifier")
    server = ThreadingHTTPServer((args.host, args.port), Handler)
    server.model = args.model
    print("Application startup complete.")
    server.serve_forever()


if __name__ == "__main__":
    main()
