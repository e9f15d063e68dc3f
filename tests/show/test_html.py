"""The page, in a real browser: it draws, it can be used, and argv is never markup."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prochist.ask.completeness import judge
from prochist.ask.filters import Question
from prochist.ask.timeline import Timeline
from prochist.clock import EpochNs
from prochist.show import html
from prochist.store.database import open_reader
from tests.browser import CHROMIUM, WHY_NOT, Browser
from tests.history_builder import SECOND, T0, HistoryBuilder, fill
from tests.story import HOSTILE, story

NOW = EpochNs(T0 + 1100 * SECOND)


def write_page(history: Path, path: Path) -> Path:
    db = open_reader(history)
    verdict = judge(db, None, None, now_ns=NOW, recording=True)
    found = Timeline(db, Question(NOW), limit=None)
    page = html.Page("A <b>title</b>", "NOT complete", False, None, None, NOW)
    path.write_text(
        "".join(html.pieces(found.lives(), found.notes(verdict), page)), encoding="utf-8"
    )
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    story(folder / "history.db")
    return write_page(folder / "history.db", folder / "page.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip(WHY_NOT)
    with Browser(tmp_path_factory.mktemp("browser") / "profile") as browser:
        yield browser


def data(page: Path) -> object:
    text = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert text is not None
    return json.loads(text[1])


def test_the_page_is_one_file_with_one_script_and_no_address(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert "{{" not in text
    assert "default-src 'none'" in text
    assert "http://" not in text
    assert "https://" not in text
    assert "A &lt;b&gt;title&lt;/b&gt;" in text
    assert isinstance(data(page), dict)


def test_a_page_of_nothing_is_valid(tmp_path: Path, browser: Browser) -> None:
    HistoryBuilder(tmp_path / "h.db").close()
    path = write_page(tmp_path / "h.db", tmp_path / "page.html")
    browser.open(path)
    assert browser.evaluate("document.getElementById('span').textContent").startswith("0 processes")


def test_hostile_argv_is_text_in_a_real_browser(page: Path, browser: Browser) -> None:
    browser.requests.clear()
    browser.open(page)
    assert browser.complaints == []
    browser.evaluate("document.getElementById('list').open = true")
    search(browser, "owned")
    browser.press("n")
    browser.press("Enter")
    shown = browser.evaluate("document.getElementById('details').textContent")
    assert "</script><script>document.title='owned'</script>" in shown
    assert "\\u001b]0;owned\\u0007" in shown
    assert "\u202e" in HOSTILE
    assert "\u202e" not in shown
    assert browser.evaluate("document.querySelectorAll('img, script').length") == 2
    assert "owned" not in browser.evaluate("document.title")
    assert browser.requests == [page.as_uri()]
    assert browser.complaints == []


def search(browser: Browser, word: str) -> None:
    browser.evaluate(
        f"(() => {{ const s = document.getElementById('search'); s.value = {json.dumps(word)};"
        " s.dispatchEvent(new Event('input')); })()"
    )
    time.sleep(0.3)  # it waits until somebody has typed
    browser.evaluate("document.getElementById('chart').focus()")


def said(browser: Browser) -> str:
    return str(browser.evaluate("document.getElementById('said').textContent"))


def test_the_keyboard_is_enough(page: Path, browser: Browser) -> None:
    browser.open(page)
    browser.evaluate("document.getElementById('chart').focus()")
    browser.press("ArrowDown")
    assert "/usr/sbin/sshd -D" in said(browser)
    assert "1 child, unfolded" in said(browser)
    browser.press("ArrowLeft")
    assert "folded" in said(browser)
    assert "unfolded" not in said(browser)
    browser.press("ArrowRight")
    browser.press("ArrowDown")
    assert "bash -l, pid 200, user ann" in said(browser)
    assert "level 2, 3 children" in said(browser)
    assert browser.evaluate("document.getElementById('details').hidden")
    browser.press("Enter")
    facts = browser.evaluate("document.getElementById('details').textContent")
    for word in ("2026-09-21 14:13:21.000000", "pts/0", "Parents", "Children: 3", "uid now 1000"):
        assert word in facts
    browser.press("Escape")
    assert browser.evaluate("document.getElementById('details').hidden")


def test_everything_known_of_a_life_is_shown(page: Path, browser: Browser) -> None:
    browser.open(page)
    search(browser, "300")
    browser.press("n")
    browser.press("Enter")
    facts = browser.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#details dt')].map("
        "(t) => [t.textContent, t.nextSibling.textContent]))"
    )
    expected = {
        "id": "3",
        "parent_id": "2",
        "pid": "300",
        "argv": '["work", "a b"]',
        "user": "ann",
        "term_signal": "11",
        "term_signal_name": "SIGSEGV",
        "core_dumped": "1",
        "state": "killed",
        "cpu_user_s": "1.5",
        "max_rss_bytes": "2097152",
        "exec_count": "2",
        "started_at": "2026-09-21 14:13:30.000000",
        "duration": "10.0 s",
        "write_bytes": "0",
    }
    assert expected.items() <= facts.items()


def test_the_mouse_chooses_and_the_colours_tell_how_it_ended(
    page: Path, browser: Browser, tmp_path: Path
) -> None:
    browser.open(page)
    rows = browser.evaluate(
        "(() => { const box = document.getElementById('chart').getBoundingClientRect();"
        " return [box.left, box.top]; })()"
    )
    browser.click(int(rows[0]) + 60, int(rows[1]) + 64 + 18 + 9)  # the second row
    assert "bash 200: exited 0" in browser.evaluate("document.querySelector('h2').textContent")
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
    colours = browser.evaluate(
        "(() => { const c = document.getElementById('chart'), p = c.getContext('2d');"
        " const d = p.getImageData(0, 0, c.width, c.height).data, s = new Set();"
        " for (let i = 0; i < d.length; i += 4) s.add(d[i] + ',' + d[i+1] + ',' + d[i+2]);"
        " return [...s]; })()"
    )
    for end in ("79,143,196", "217,119,6", "46,139,87", "138,143,152"):
        assert end in colours


def test_the_table_says_the_same_to_a_screen_reader(page: Path, browser: Browser) -> None:
    browser.open(page)
    browser.evaluate("document.getElementById('list').open = true")
    time.sleep(0.1)
    rows = browser.evaluate("document.querySelectorAll('#rows tbody tr').length")
    assert rows == 7
    assert browser.evaluate("document.querySelector('#rows caption').textContent") == "1 to 7 of 7"
    roles = browser.evaluate("document.getElementById('chart').getAttribute('aria-label')")
    assert "arrow keys" in roles


def test_ten_thousand_lives_are_small_and_open_at_once(tmp_path: Path, browser: Browser) -> None:
    builder = HistoryBuilder(tmp_path / "h.db")
    fill(builder, 10_000)
    builder.close()
    path = write_page(tmp_path / "h.db", tmp_path / "page.html")
    assert path.stat().st_size < 3_000_000
    assert browser.open(path) < 5  # 1 s is the bound on a machine that has nothing else to do
    assert browser.complaints == []
