"""Refuse images with critical vulnerabilities: trivy_gate.py PORT DIRECTORY SECRET_FILE.

A job of yours lets Trivy write reports into the directory, named by the digest of an image or an index:
trivy image --format json --output DIRECTORY/sha256:6e0f….json docker.io/library/nginx@sha256:6e0f…
"""

import hmac
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, DIRECTORY, SECRET = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]).read_text().strip()
DIGEST, REFUSED = re.compile(r"sha256:[0-9a-f]{64}"), ("CRITICAL",)


def verdict(question):
    digests = [each for each in (question["digest"], *question["indexes"]) if DIGEST.fullmatch(each)]
    paths = [path for each in digests if (path := DIRECTORY / f"{each}.json").exists()]
    if not paths:
        return {"allow": False, "reason": "it is not scanned yet; try again later", "valid_for": 10}
    found = {
        each["VulnerabilityID"]
        for result in json.loads(paths[0].read_text()).get("Results") or []
        for each in result.get("Vulnerabilities") or []
        if each["Severity"] in REFUSED
    }
    if found:
        return {"allow": False, "reason": f"it has {', '.join(sorted(found)[:5])}", "valid_for": 300}
    return {"allow": True, "valid_for": 300}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {SECRET}"):
            self.send_error(401)
            return
        answer = json.dumps(verdict(question)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
