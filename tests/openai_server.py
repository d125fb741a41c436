"""A small server that speaks OpenAI's protocol over a model of famcli, and one that fails as servers do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from famcli.checkpoints.sources import LoadedModel

END = 256


class Server(ThreadingHTTPServer):
    """Attributes:
    model: what answers; a token is a byte.
    faults: what the next requests meet, one each: ``500``, ``429``, ``401``, ``400``, ``stall``, ``cut``, ``text``.
    refused: a text; questions with it in them are refused.
    tells: whether it tells likelihoods of prompts.
    marked: whether it puts a mark before a text, and tells so.
    asked: bodies and keys of all requests.
    """

    daemon_threads = True

    def __init__(self, model: LoadedModel) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.faults, self.refused, self.tells = model, list[str](), "", True
        self.marked = False
        self.asked: list[tuple[str, dict[str, Any], str]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @torch.no_grad()
    def likelihoods(self, ids: list[int]) -> torch.Tensor:
        """[t, vocabulary] of what follows each token."""
        stream = self.model.stream
        latents, _ = stream.read(torch.tensor([ids]), stream.start(1))
        found: torch.Tensor = stream.logits(latents)[0, :, :257].double().log_softmax(-1)
        return found

    @torch.no_grad()
    def continued(self, prompt: str, budget: int, stop: list[str]) -> tuple[str, str]:
        """What follows, and why it ends."""
        stream, text = self.model.stream, b""
        latents, state = stream.read(torch.tensor([list(prompt.encode())]), stream.start(1))
        for _ in range(budget):
            token = int(stream.logits(latents[0, -1])[:257].argmax())
            if token == END:
                return text.decode(errors="replace"), "stop"
            text += bytes([token])
            if any(text.endswith(one.encode()) for one in stop):
                return text[: -max(len(one) for one in stop if text.endswith(one.encode()))].decode(), "stop"
            latents, state = stream.read(torch.tensor([[token]]), state)
        return text.decode(errors="replace"), "length"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((self.path, body, self.headers.get("Authorization", "")))
            fault = self.server.faults.pop(0) if self.server.faults else ""
        if self.server.refused and self.server.refused in body["prompt"]:
            fault = "400"
        if fault:
            return self.fail(fault)
        with self.server.lock:
            return self.chat(body) if self.path.endswith("/chat/completions") else self.complete(body)

    def fail(self, fault: str) -> None:
        if fault == "stall":
            time.sleep(1.5)
            self.close_connection = True
        elif fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.wfile.flush()
            self.close_connection = True
        elif fault == "text":
            self.reply(200, "a page of a proxy", kind="text/html")
        else:
            key = self.headers.get("Authorization", "")
            self.reply(int(fault), {"error": {"message": f"fault {fault} for {key}", "type": "x"}})

    def complete(self, body: dict[str, Any]) -> None:
        prompt = body["prompt"]
        if not body.get("echo"):
            text, why = self.server.continued(prompt, body["max_tokens"], body.get("stop") or [])
            return self.reply(200, {"choices": [{"index": 0, "text": text, "finish_reason": why}]})
        ids = [*([END] if self.server.marked else []), *prompt.encode()]
        likelihoods = self.server.likelihoods(ids)
        values = [None, *(float(likelihoods[i, token]) for i, token in enumerate(ids[1:]))]
        best = [None, *({chr(int(row.argmax())): float(row.max())} for row in likelihoods[:-1])]
        tokens = ["</s>" if one == END else bytes([one]).decode(errors="replace") for one in [*ids, 33]]
        told = {"tokens": tokens, "token_logprobs": [*values, -1.0], "top_logprobs": best}
        choice = {"index": 0, "text": prompt + "!", "finish_reason": "length", "logprobs": told}
        if not self.server.tells:
            choice["logprobs"] = None
        return self.reply(200, {"choices": [choice], "usage": {"prompt_tokens": len(ids)}})

    def chat(self, body: dict[str, Any]) -> None:
        (turn,) = body["messages"]
        text, why = self.server.continued(turn["content"], body["max_tokens"], body.get("stop") or [])
        message = {"role": "assistant", "content": text}
        self.reply(200, {"choices": [{"index": 0, "message": message, "finish_reason": why}]})

    def reply(self, status: int, content: Any, kind: str = "application/json") -> None:
        written = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(written)))
        if status == 429:
            self.send_header("Retry-After", "0.05")
        self.end_headers()
        self.wfile.write(written)


@contextmanager
def serving(model: LoadedModel) -> Iterator[Server]:
    """A server while the block lasts."""
    server = Server(model)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
