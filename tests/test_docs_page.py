"""The API's own page works in a browser, with nothing from elsewhere."""

from playwright.async_api import Browser, expect


async def test_the_api_page_opens_and_asks_nobody_else(live_server: str, browser: Browser) -> None:
    page = await browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(live_server + "/docs")
    await expect(page.get_by_text("/save-prompt").first).to_be_visible()
    assert [url for url in asked if not url.startswith((live_server, "data:"))] == []
    await page.close()
