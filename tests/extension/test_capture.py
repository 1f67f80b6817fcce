"""What people say to the assistants arrives at their server, word for word and once."""

import pytest

from tests.extension.conftest import ALL_SITES, Extension, whole
from tests.extension.sites import Plan, Sites


@pytest.mark.parametrize("site", ALL_SITES)
async def test_a_chat_is_saved_word_for_word(extension: Extension, sites: Sites, site: str) -> None:
    prompt, answer = "What is this?\r\n\tEnde 🙂 עברית", "Line\n\n```py\nx = '\\u0000'\n```\n終 🙂 "
    sites.plan(prompt, Plan(answer=answer))
    page = await extension.open(site)
    await extension.say(page, prompt)

    [memory] = await extension.until_saved(whole(1))

    assert (memory["prompt"], memory["response"]) == (prompt, answer)
    assert (memory["provider"], memory["source"]) == (site, "extension")
    assert memory["conversation_id"] == sites.turns[0].chat
    assert memory["metadata"] == {"capture": "network"}
