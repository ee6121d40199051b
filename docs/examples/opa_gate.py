"""Pass the mirror's questions to the Open Policy Agent: opa_gate.py PORT OPA_URL SECRET_FILE.

OPA_URL is the address of the policy's document, such as http://127.0.0.1:8181/v1/data/dockmirror; it gets the
question as its input, and has the reasons for a refusal as ``deny``.  Start the agent beside it:
opa run --server --addr 127.0.0.1:8181 opa_gate.rego
"""

import hmac
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

PORT, OPA_URL, SECRET = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_text().strip()


def verdict(question):
    body = json.dumps({"input": question}).encode()
    request = Request(OPA_URL, body, {"Content-Type": "application/json"})  # noqa: S310
    with urlopen(request, timeout=1.5) as response:  # noqa: S310
        reasons = json.load(response)["result"]["deny"]
    return {"allow": not reasons, "reason": "; ".join(sorted(reasons)), "valid_for": 300}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {SECRET}"):
            self.send_error(401)
            return
        try:
            answer = json.dumps(verdict(question)).encode()
        except (URLError, TimeoutError, ValueError, KeyError, TypeError) as error:
            self.send_error(502, f"OPA gave no verdict: {type(error).__name__}")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
