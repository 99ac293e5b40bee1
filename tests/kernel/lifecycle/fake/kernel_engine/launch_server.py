"""A stand-in for the engine, whose model's name lists what it does wrong: `pause`, `slow`, `broken`, `stubborn`, `family`,
`stray`.

It keeps the real one's promises otherwise: the ready file, the API key file, /health_generate.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        key = self.server.api_key
        is_allowed = not key or self.headers["Authorization"] == f"Bearer {key}"
        body = json.dumps({"pid": os.getpid(), "argv": sys.argv[1:]}).encode()
        self.send_response(200 if is_allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model-path")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    parser.add_argument("--api-key-file", type=Path)
    parser.add_argument("--ready-file", type=Path)
    args, _ = parser.parse_known_args()
    faults = args.model_path.split("-")
    if "stubborn" in faults:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "family" in faults or "stray" in faults:
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        child = subprocess.Popen(sleep, start_new_session="stray" in faults)
        print(f"child {child.pid}")
    print("Loading weights 43 %")
    if "broken" in faults:
        sys.exit("no such model: broken")
    if "pause" in faults:
        time.sleep(2)
    if "slow" in faults:
        time.sleep(600)
    server = ThreadingHTTPServer((args.host, args.port), Handler)
    server.api_key = args.api_key_file.read_text() if args.api_key_file else ""
    if args.ready_file:
        port = server.server_port
        ready = {"url": f"http://127.0.0.1:{port}", "port": port, "pid": os.getpid(), "model_path": args.model_path}
        draft = args.ready_file.with_suffix(".tmp")
        draft.write_text(json.dumps(ready))
        draft.replace(args.ready_file)
    print("The server is fired up and ready to roll!")
    server.serve_forever()


if __name__ == "__main__":
    main()
