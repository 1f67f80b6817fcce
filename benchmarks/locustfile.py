"""People at work, for Locust: 5 saves to 3 searches to 2 lists to 1 question without a model.

`benchmarks/load.py` starts all that is needed. By hand: `TOKENS=tokens.json
HOSTS=http://127.0.0.1:8000 locust -f benchmarks/locustfile.py`, the file a JSON list of access
tokens. Of several hosts, with commas between, each person has one, as behind a load balancer.
"""

import itertools
import json
import os
import random
from pathlib import Path
from uuid import uuid4

from locust import FastHttpUser, between, task
from locust.env import Environment

HOSTS = itertools.cycle(os.environ["HOSTS"].split(","))
TOKENS = itertools.cycle(json.loads(Path(os.environ["TOKENS"]).read_text()))
SUBJECTS = ("walrus", "sorting", "bread", "garden", "taxes", "piano", "novel", "bicycle", "moss")
WORDS = [f"{one} {two}" for one in SUBJECTS for two in SUBJECTS if one != two]


def prompt() -> str:
    """About a hundred words."""
    return f"How do I go about {'; and '.join(random.sample(WORDS, 25))}?"


class Person(FastHttpUser):
    wait_time = between(1, 3)
    network_timeout = connection_timeout = 30

    def __init__(self, environment: Environment) -> None:
        self.host = next(HOSTS)
        super().__init__(environment)

    def on_start(self) -> None:
        self.me = {"Authorization": f"Bearer {next(TOKENS)}"}

    @task(5)
    def save(self) -> None:
        body = {"id": str(uuid4()), "prompt": prompt(), "provider": "claude"}
        self.client.post("/save-prompt", json=body, headers=self.me)

    @task(3)
    def search(self) -> None:
        self.client.post("/search", json={"query": random.choice(WORDS)}, headers=self.me)

    @task(2)
    def list_memories(self) -> None:
        self.client.get("/memories?limit=20", name="/memories", headers=self.me)

    @task(1)
    def ask(self) -> None:
        body = {"question": f"What of {random.choice(WORDS)}?"}
        self.client.post("/rag/query", json=body, headers=self.me)
