"""A turn that was captured live and is imported later is one memory."""

import json
from uuid import UUID

import pytest

from core.config import ROOT
from core.memory_ids import memory_id, well_formed

# The extension's own tests read the same file.
VECTORS = json.loads((ROOT / "extension" / "test" / "memory_ids.json").read_text())


@pytest.mark.parametrize("case", VECTORS["ids"], ids=lambda case: case["memory_id"])
def test_both_sides_derive_the_same_id(case):
    derived = memory_id(UUID(case["user_id"]), case["provider"], case["message_id"])

    assert str(derived) == case["memory_id"]


@pytest.mark.parametrize("case", VECTORS["texts"], ids=lambda case: ascii(case["seen"]))
def test_both_sides_mend_a_text_in_the_same_way(case):
    assert well_formed(case["seen"]) == case["kept"]


def test_an_id_is_anothers_for_another_user_site_or_message():
    assert len({case["memory_id"] for case in VECTORS["ids"]}) == len(VECTORS["ids"])
