"""The operations endpoint of a mirror with a stocked cache and tokens, and a client of it."""

# mypy: allow-untyped-calls

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import bcrypt
from twisted.internet.task import Clock

from dockmirror.admission.recall_enforcement import RecallOrder
from dockmirror.app.local_admission import ExportGates
from dockmirror.app.naming import (
    ImageName,
    complete_image_pattern,
    mirrored_registries,
    parse_client_name,
    parse_image_name,
)
from dockmirror.app.operations import operations_body_limit
from dockmirror.app.telemetry import ProcessTelemetry, read_worker_state
from dockmirror.config.load import load
from dockmirror.history.pulls import HistoryReader
from dockmirror.http.server import HttpSite
from dockmirror.oci.request import Reference, Repository
from dockmirror.store.held_images import HeldImages
from dockmirror.store.packed_images import ExportGate
from dockmirror.store.store_index import StoreIndex
from dockmirror.store.tag_history import LocalTagHistory
from dockmirror.system.shared_table import SharedDigests
from dockmirror.users import ApiTokens
from dockmirror.web.api.api_resource import ApiResource
from dockmirror.web.auth import TokenAuth
from dockmirror.web.client_limits import FailedLogins
from dockmirror.web.images.catalog import ImageCatalog, PullFigures
from dockmirror.web.images.images_resource import ImagesContext, ImagesResource, OperatorViewer
from dockmirror.web.images.operator_pages import OperatorPages
from dockmirror.web.operations_endpoint import OperationsResource
from dockmirror.web.operator_actions import ImageActions, ImageNames, RecallActions
from dockmirror.web.pages.history_form import FormReader
from dockmirror.web.pages.history_page import HistoryContext, HistoryResource
from dockmirror.web.readiness import ReadinessCheck
from dockmirror.web.shared_tables import SharedTables
from dockmirror.web.status.overview import StatusOverview
from tests.cli.shop import stocked
from tests.house import Answer, House
from tests.internet import Internet
from tests.store.threads import inline

ADDRESS = "127.0.0.1:9464"
NOW = 1_790_000_100.0


def token_line(name: str, scopes: str) -> str:
    """Return a line of the file of tokens, whose secret is ``NAME-secret``."""
    hashed = bcrypt.hashpw(f"{name}-secret".encode(), bcrypt.gensalt(4)).decode()
    return f"{name}:{hashed}:{scopes}\n"


def login(name: str, secret: str = "") -> str:
    """Return the header of a token."""
    encoded = base64.b64encode(f"{name}:{secret or f'{name}-secret'}".encode()).decode()
    return f"Authorization: Basic {encoded}"


CI = login("ci")


def page_text(body: bytes) -> str:
    """Return the text of a page, its elements separated by blanks."""
    content = re.sub(r"(?s)<(style|script)>.*?</\1>", "", body.decode())
    return " ".join(unescape(re.sub("<[^>]*>", " ", content)).split())


class Endpoint:
    """The operations endpoint, whose files lie in a directory."""

    def __init__(
        self, directory: Path, history: HistoryReader | None = None, has_tokens: bool = True
    ) -> None:
        self.shop = stocked(directory / "cache")
        self.root = self.shop.root
        self.audited: list[str] = []
        self.clock = Clock()
        self.clock.advance(NOW)
        memory, settings = SharedTables.create(), load({"domain": "mirror.example"}, {})
        tokens = None
        if has_tokens:
            file = directory / "tokens"
            file.write_text(token_line("ci", "write") + "# a comment\n" + token_line("reader", "read"))
            tokens = ApiTokens(file, inline, SharedDigests(memory.verified_passwords, self.clock.seconds))

        def parse(image: str) -> tuple[Repository, Reference]:
            name = parse_image_name(image, settings)
            return name.repository, name.reference

        def parse_listed(image: str) -> tuple[Repository, Reference]:
            name = parse_client_name(image, settings)
            return name.repository, name.reference

        def gate(repository: Repository, reference: Reference) -> ExportGate:
            return ExportGates(settings, self.root, NOW).make(ImageName(repository, reference))

        actions, listed = (
            ImageActions(self.root, names, inline, self.clock, self.audited.append, gate)
            for names in (
                ImageNames(each, lambda: mirrored_registries(settings)) for each in (parse, parse_listed)
            )
        )
        failed_logins = FailedLogins(memory.failed_logins, self.clock)
        self.auth = TokenAuth(tokens, failed_logins, actions.record_refusal)
        index = StoreIndex(self.root)
        recalls = RecallActions(actions, lambda: RecallOrder(self.root, None, self.clock.seconds))
        api = ApiResource(self.auth, actions, index, history, recalls)
        self.tag_history = LocalTagHistory(self.root, self.clock, inline)
        context = ImagesContext(
            ImageCatalog(index),
            PullFigures(history, self.clock.seconds),
            self.tag_history,
            inline,
            self.clock,
            lambda _: OperatorViewer(lambda registry: ["docker"] if registry == "docker.io" else []),
            lambda _, image: f"mirror.example/{image}",
        )
        images = ImagesResource(context, OperatorPages(listed, self.auth, self.clock))
        form_reader = FormReader(lambda text: complete_image_pattern(text, settings), 30)
        pulls = HistoryContext(history, inline, self.clock, form_reader, HeldImages(self.root))
        self._front = House(Internet())
        telemetry = ProcessTelemetry(
            self._front.metrics,
            ReadinessCheck(self._front.site, self.clock, ()),
            lambda: read_worker_state(settings, self._front.watched.upstreams, None, {}),
        )
        overview = StatusOverview(telemetry, None, "1.2.3", 0.0, self.clock)
        pages = {"api": api, "images": images, "history": HistoryResource(pulls)}
        resource = OperationsResource(telemetry, overview, lambda: ["mirror.example"], self.clock, pages)
        self._front.site = HttpSite(resource, self.clock, body_limit=operations_body_limit)

    def ask(self, method: str, path: str, *headers: str, body: bytes = b"", host: str = ADDRESS) -> Answer:
        """Return the answer to a request on a new connection."""
        length = [f"Content-Length: {len(body)}"] if body or method == "POST" else []
        return self._front.connect().ask(method, host, path, *length, *headers, body=body).answer

    def get(self, path: str, *headers: str) -> Answer:
        return self.ask("GET", path, *headers)

    def post(self, path: str, fields: object, *headers: str) -> Answer:
        """Return the answer to JSON."""
        kind = "Content-Type: application/json"
        return self.ask("POST", path, kind, *headers, body=json.dumps(fields).encode())

    def submit(self, fields: Mapping[str, str], *headers: str) -> Answer:
        """Return the answer to a form."""
        kind = "Content-Type: application/x-www-form-urlencoded"
        return self.ask("POST", "/images/", kind, *headers, body=urlencode(fields).encode())

    def text(self, path: str, *headers: str) -> str:
        """Return the text of a page, its elements separated by blanks."""
        answer = self.get(path, *headers)
        assert (answer.status, answer["Content-Type"]) == (200, "text/html; charset=utf-8")
        return page_text(answer.body)

    def audit(self) -> Sequence[tuple[str | None, str, str | None, str]]:
        """Return who did what in the audit log, and with which result."""
        lines = map(json.loads, self.audited)
        return [(each["token"], each["action"], each["image"], each["result"]) for each in lines]
