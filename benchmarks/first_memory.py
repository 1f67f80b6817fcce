"""Sign up, save a first memory and find it again on a running server; says how long each took.

usage: python benchmarks/first_memory.py [http://127.0.0.1:8000]
"""

import sys
import time
from uuid import uuid4

sys.path.pop(0)  # this folder, whose http.py would stand in for the standard library's

import httpx


def main(url: str) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        start = time.perf_counter()

        def step(name: str, path: str, **body: object) -> dict:
            nonlocal start
            answer = client.post(path, json=body)
            answer.raise_for_status()
            print(f"{name}: {(time.perf_counter() - start) * 1000:.0f} ms")
            start = time.perf_counter()
            return answer.json()

        person = {"email": f"{uuid4()}@example.com", "password": str(uuid4())}
        token = step("signed up", "/auth/v1/signup", **person)["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        memory = {"prompt": "My first memory is about lighthouses.", "provider": "chatgpt"}
        saved = step("saved", "/save-prompt", **memory)["data"]["memory_id"]
        hits = step("found", "/search", query="lighthouse")["data"]["hits"]
        assert hits[0]["memory"]["id"] == saved


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
