"""The page of a benchmark: of a whole one, of one that another tool made, and of one in which all failed."""

import re
from html.parser import HTMLParser

import pytest

from orchestrator.report import strips
from orchestrator.report.bench import render
from orchestrator.report.findings import doubts, findings
from orchestrator.report.words import said
from tests.bench.fake_result import fake_result


def plain(**changes):
    """A small result as plain data, one target and one workload, with changes to its parts."""
    result = fake_result(targets=("vllm-fp8",), workloads=("chat",)).model_dump(mode="json")
    return {**result, **changes}


@pytest.fixture(scope="module")
def page():
    return render(fake_result().model_dump(mode="json"))


class Reader(HTMLParser):
    """Ids, text by section, and everything that could load something."""

    def __init__(self, page):
        super().__init__()
        self.ids, self.loads, self.sections, self.section, self.scripts = [], [], {}, "", 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.scripts += tag in ("script", "link", "iframe", "object")
        self.ids += [found["id"]] if "id" in found else []
        if tag == "section":
            self.section = found.get("id", "")
        loading = ("src", "href", "xlink:href", "action", "poster")
        self.loads += [found[name] for name in loading if name in found and not found[name].startswith("#")]

    def handle_data(self, text):
        self.sections[self.section] = self.sections.get(self.section, "") + text


def test_the_page_loads_nothing(page):
    read = Reader(page)
    assert (read.scripts, read.loads) == (0, [])
    assert not re.search(r"url\((?!#)|@import", page)


def test_no_two_elements_share_an_id(page):
    ids = Reader(page).ids
    assert len(ids) == len(set(ids))


def test_what_servers_said_is_text_and_not_markup(page):
    assert "<segfault" not in page
    assert "<b>retry" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_every_workload_has_its_curves_loads_and_distributions(page):
    for place in (1, 2):
        section = page.split(f'<section id="curves-{place}">')[1].split("</section>")[0]
        titles = re.findall(r"<figcaption><b>(.*?)</b>", section)
        cost, goodput = ["Cost per million output tokens"] * 2, ["Goodput"] * 2
        assert titles == ["TTFT p95", "ITL p95", "TPOT p95", *goodput, *cost, "TTFT", "ITL"]
        assert section.count("<svg") == len(titles)


def test_every_measured_cell_has_a_timeline_with_the_engine_aligned_and_its_distributions(page):
    cells = page.split('<details class="cell"')[1:]
    assert len(cells) == 30, "32 cells, 2 failed"
    for cell in cells:
        for title in ("Output tokens/s", "TTFT, ms", "in flight", "waiting", "KV cache in use", "end-to-end, ms"):
            assert title in cell


def test_a_failed_cell_is_a_row_with_its_cause(page):
    assert Reader(page).sections["cells"].count("the engine died with code 139: <segfault in ggml_backend>") == 2


def test_the_table_has_intervals_in_the_unit_of_their_value():
    result = plain()
    spread = result["cells"][0]["summary"]["latencies"]["ttft"]
    spread |= {"p95": 0.0304, "intervals": {"p95": (0.0289, 0.0319)}}
    assert "30.4 ms<small>28.9 – 31.9</small>" in render(result)


def test_the_page_says_what_it_was_measured_on_and_how_the_client_fared(page):
    sections = Reader(page).sections
    for fact in (
        "NVIDIA H100",
        "driver 570.86.15",
        "vllm 0.32.0",
        "$2.49 per hour, clusters/h100x8.yaml",
        "max_model_len",
    ):
        assert fact in sections["provenance"]
    assert re.search(r"Seed\s*17", sections["provenance"])
    assert "client-limited: add --workers" in sections["trust"]
    assert "98 %" in sections["trust"]


def test_the_findings_name_the_best_and_what_keeps_the_slo():
    sentences = findings(fake_result().model_dump(mode="json"))["chat"]
    assert re.match(r"vllm-fp8 delivers the most output: [\d,]+ tokens/s at 256 streams \(TTFT p95 ", sentences[0])
    assert sentences[1].startswith(
        "Within the SLO (TTFT ≤ 500 ms and TPOT ≤ 50 ms for 99 % of the requests): vllm-fp8 gives"
    )
    assert "the highest rate that kept the SLO is 11.2 requests/s (at 12.5 it was broken)" in " ".join(sentences)


def test_a_target_that_never_keeps_the_slo_is_named():
    result = plain()
    for cell in result["cells"]:
        cell["summary"]["keeps_slo"] = False
    assert "vllm-fp8 keeps it at none of its loads" in findings(result)["chat"][1]


def test_what_to_doubt_is_said_and_nothing_else():
    sentences = " ".join(doubts(fake_result().model_dump(mode="json")))
    assert "2 cells of 32 failed" in sentences
    assert "Client-limited, add --workers: vllm-fp8 at 256 streams" in sentences
    assert "prompt-token parity" in sentences
    result = plain(cells=plain()["cells"][:3])
    assert doubts(result) == []


def test_a_clock_that_was_set_is_a_doubt():
    result = plain(cells=plain()["cells"][:1])
    result["cells"][0]["summary"]["client"]["clock_step_s"] = -0.5
    assert doubts(result) == ["The client's clock was set while measuring: vllm-fp8 at 1 stream."]


def test_prompt_tokens_that_a_prefix_cache_gave_are_a_doubt():
    result = plain(cells=plain()["cells"][:2])
    for cell, cached in zip(result["cells"], (20, 60), strict=True):
        cell["summary"] |= {"prompt_tokens": 200, "cached_tokens": cached}
    (said,) = doubts(result)
    assert said == "Prefix caches are on, as when serving, and gave some of the prompt tokens: 20 % of vllm-fp8's."


def test_a_result_in_which_everything_failed_still_has_a_page():
    cells = [{**cell, "state": "failed", "cause": "refused", "summary": None} for cell in plain()["cells"]]
    page = render(plain(cells=cells))
    assert "No cell of this workload has succeeded" in page
    assert "8 of 8 cells failed" in page


def test_a_result_without_cells_still_has_a_page():
    assert "This result has no cells" in render(plain(cells=[], searches=[]))


def test_a_result_of_another_tool_shows_what_it_has():
    result = plain(source="guidellm", slo=None, settings={}, client_hardware=None, prompt_parity=None, searches=[])
    for cell in result["cells"]:
        bare = {"timeline": [], "engine": [], "client": None, "goodput": None, "goodput_per_s": None, "keeps_slo": None,
                "usd_per_million_tokens": None, "cached_tokens": None, "steady": None, "intervals": {}}  # fmt: skip
        cell["summary"] |= bare
        for spread in cell["summary"]["latencies"].values():
            spread |= {"intervals": {}, "quantiles": []}
    result["targets"][0] |= {"hardware": None, "usd_per_hour": None, "engine": None, "engine_version": None}
    page = render(result)
    assert "imported from guidellm" in page
    assert "How the client fared was not recorded" in page
    assert "unknown: the server does not run on the client" in page
    assert page.count("<svg") == 3, "the three curves"


def test_a_timeline_leaves_out_what_is_not_known():
    panel = strips.Panel("Queue", {"waiting": ([0.0, 1.0, 2.0, 3.0], [1.0, None, 3.0, 4.0])})
    drawn = re.search(r'<path d="([^"]*)" fill="none"', strips.timeline(0, [panel]))[1]
    assert [len(piece.split("L")) for piece in drawn.split("M")[1:]] == [1, 2]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"input_tokens": {"fixed": "256"}, "file": None}, "input tokens 256"),
        ({"lognormal": {"median": 400, "sigma": 0.8}}, "lognormal median 400, sigma 0.8"),
        ([1, 8, 32], "1, 8, 32"),
        ({}, ""),
        (None, ""),
        (True, "yes"),
    ],
)
def test_settings_are_said_whatever_they_hold(value, text):
    assert said(value) == text
