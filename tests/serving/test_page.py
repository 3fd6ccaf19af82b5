"""The page in a real Chromium: typed into, sent, read; narrow and dark; and what it loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import monox_kit as mk
from tests.browser import Browser, find_browser
from tests.serving.conftest import Process, long_text, texts

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")
TEXTS = texts(2, seed=9)


@pytest.fixture(scope="module")
def url(bundle: Path) -> Iterator[str]:
    server = Process(f"student={bundle}", "--max-rows", "4", "--max-characters", "1000")
    assert server.url, server.told
    yield server.url
    server.kill()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM, tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def page(tab: Browser, url: str) -> Browser:
    """The page, once it knows the model; nothing was complained of so far."""
    tab.requests.clear()
    tab.complaints.clear()
    tab.resize(1000, 800)
    tab.prefer("light")
    tab.open(f"{url}/")
    tab.wait_for("document.getElementById('model').textContent.includes('3 classes')")
    return tab


def results(page: Browser, count: int) -> list[str]:
    """The texts of the results, once there are so many."""
    page.wait_for(f"document.querySelectorAll('#results > li').length === {count}")
    found = page.value("[...document.querySelectorAll('#results > li')].map((e) => e.innerText)")
    assert isinstance(found, list)
    return found


def problem(page: Browser) -> str:
    """The message, once it is shown."""
    page.wait_for("!document.getElementById('problem').hidden")
    return str(page.value("document.getElementById('problem').textContent"))


def test_sentences_are_typed_sent_and_shown_with_their_probabilities(
    page: Browser, bundle: Path, url: str
) -> None:
    assert page.value("document.activeElement.id") == "texts"
    page.call("Input.insertText", text="\n".join([*TEXTS, "", long_text(60)]))
    page.press("Tab")
    assert page.value("document.activeElement.id") == "send"
    page.press("Enter")
    asked = [*TEXTS, long_text(60)]
    for shown, text, one in zip(
        results(page, 3), asked, mk.load(str(bundle)).predict(asked, top_k=3), strict=True
    ):
        assert text in shown
        for label, probability in one.top:
            assert f"{100 * probability:.1f} %" in shown
            assert label in shown
        assert ("cut off" in shown) is one.truncated
        assert "tokens" in shown
    chosen = page.value("[...document.querySelectorAll('dt.chosen')].map((e) => e.textContent)")
    assert chosen == [one.label for one in mk.load(str(bundle)).predict(asked)]
    widths = page.value(
        "[...document.querySelectorAll('#results .bar')]"
        ".map((e) => e.getBoundingClientRect().width)"
    )
    assert len(widths) == 9
    assert widths[0] > widths[1] > widths[2]
    summary = page.value("document.getElementById('summary').textContent")
    assert summary.startswith("3 texts, ")
    assert " ms " in summary
    assert page.complaints == []
    assert {each.removeprefix(url) for each in page.requests} == {
        "/",
        "/info",
        "/v2/models/student/infer",
    }


def test_the_keyboard_alone_sends(page: Browser) -> None:
    page.type("#texts", TEXTS[0])
    page.press("Enter", control=True)
    assert len(results(page, 1)) == 1


def test_what_is_refused_is_told_and_put_right(page: Browser) -> None:
    page.press("Enter", control=True)
    assert "Type a sentence" in problem(page)
    page.type("#texts", "\n".join(["word"] * 5))
    page.press("Enter", control=True)
    page.wait_for("document.getElementById('problem').textContent.includes('takes 4')")
    page.type("#texts", "word " * 300)  # which the server itself refuses
    page.press("Enter", control=True)
    page.wait_for("document.getElementById('problem').textContent.includes('characters')")
    page.type("#texts", TEXTS[0])
    page.press("Enter", control=True)
    results(page, 1)
    assert page.value("document.getElementById('problem').hidden")


def test_markup_in_a_sentence_is_text(page: Browser) -> None:
    page.type("#texts", "<img src=x onerror=alert(1)> word")
    page.press("Enter", control=True)
    (shown,) = results(page, 1)
    assert "<img src=x onerror=alert(1)>" in shown
    assert page.value("document.querySelectorAll('img').length") == 0


def test_a_narrow_screen_needs_no_scrolling_to_the_side(page: Browser) -> None:
    page.resize(320, 700)
    page.type("#texts", "x" * 300)
    page.press("Enter", control=True)
    results(page, 1)
    assert page.value("document.documentElement.scrollWidth <= window.innerWidth")


def test_dark_and_light_differ_and_can_be_read(page: Browser) -> None:
    def contrast() -> float:
        """The ratio of WCAG 2.2 between text and ground."""
        colors = page.value(
            "(({ color, backgroundColor }) => [color, backgroundColor])"
            "(getComputedStyle(document.body))"
        )

        def luminance(color: str) -> float:
            parts = [int(each) / 255 for each in color[4:-1].split(",")]
            linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
            return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])

        low, high = sorted(map(luminance, colors))
        return (high + 0.05) / (low + 0.05)

    grounds = []
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        grounds.append(page.value("getComputedStyle(document.body).backgroundColor"))
        assert contrast() > 7
    assert grounds[0] != grounds[1]


def test_every_field_has_a_label(page: Browser) -> None:
    unnamed = page.value(
        "[...document.querySelectorAll('textarea, input, select')].filter((e) => !e.labels.length)"
        ".map((e) => e.id)"
    )
    assert unnamed == []


def test_the_policy_runs_no_other_code(page: Browser) -> None:
    added = (
        "(() => { const made = document.createElement('script');"
        " made.textContent = 'window.bad = 1'; document.body.append(made);"
        " return window.bad === undefined; })()"
    )
    assert page.value(added)
    fetched = "fetch('http://127.0.0.1:1/').then(() => 'sent', (error) => String(error))"
    assert "TypeError" in page.value(fetched)
    assert any("Content Security Policy" in each for each in page.complaints)


def test_a_server_with_keys_is_asked_with_one(tab: Browser, bundle: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-this-server-0123456789\n")
    keys.chmod(0o600)
    server = Process(f"student={bundle}", "--keys", str(keys))
    try:
        assert server.url, server.told
        tab.open(f"{server.url}/")
        assert "key" in problem(tab)
        assert not tab.value("document.getElementById('keys').hidden")
        tab.type("#key", "a-key-of-this-server-0123456789")
        tab.type("#texts", TEXTS[0])
        tab.press("Enter", control=True)
        assert len(results(tab, 1)) == 1
        assert tab.value("localStorage.length + sessionStorage.length") == 0
    finally:
        server.kill()


def test_the_interface_s_page_is_drawn_and_loads_nothing(tab: Browser, url: str) -> None:
    tab.requests.clear()
    tab.complaints.clear()
    tab.open(f"{url}/docs")
    assert tab.value("document.querySelectorAll('section').length") > 10
    assert tab.value("getComputedStyle(document.querySelector('main')).maxWidth") == "960px"
    assert tab.complaints == []
    assert {each.removeprefix(url) for each in tab.requests} == {"/docs"}
