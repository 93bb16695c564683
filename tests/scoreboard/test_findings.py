import json
import re
import shutil

import pytest

from stages.common.errors import InputError
from stages.scoreboard.findings import PAGE, RESULTS, TEMPLATE, find, rendered, sources, written

SOURCE = TEMPLATE.read_text(encoding="utf-8")
TEXT = PAGE.read_text(encoding="utf-8")
FILLED_IN = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
GUARD = re.compile(r"\{\{ (?:says|require)\(|\{# fact: \S")
# names that hold a digit; everything else with one has to be filled in
NAMES = re.compile(
    r"`[^`]*`|\]\([^)]*\)|\b[CX]\d+b?\b|\bL[12]\b|\bR\d+_\w+|\bFig\. \d+"
    r"|\b[Ee]qs?\. \d+(?: and (?:eq\. )?\d+)?|\bVGG\d+|\bResNet\d+"
    r"|\bCIFAR-\d+|\bChaCha20-Poly1305|\bbn_sn_lam33\b|\b(?:19|20)\d\d\b"
)
SPELLED = r"three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred|thousand|million|half"


def paragraphs(text):
    """Return the paragraphs of a page: no heading, no table, nothing before the first heading."""
    blocks = text[text.index("\n# ") :].split("\n\n")
    return [b.strip() for b in blocks if b.strip() and not b.lstrip().startswith(("#", "|"))]


@pytest.fixture
def results(tmp_path):
    shutil.copytree(RESULTS, tmp_path, dirs_exist_ok=True)

    def change(file, edit):
        content = json.loads((tmp_path / file).read_text())
        edit(content)
        (tmp_path / file).write_text(json.dumps(content))
        return tmp_path

    return change


def test_the_page_is_the_template_filled_with_the_results():
    assert rendered(SOURCE, sources()) == TEXT


def test_no_number_is_typed_by_hand():
    for block in paragraphs(SOURCE):
        words = NAMES.sub("", FILLED_IN.sub("", block))
        assert not re.search(r"\d", words), words
        assert not re.search(rf"\b({SPELLED})\b", words, re.IGNORECASE), words


def test_a_number_that_is_filled_in_is_read_from_a_file():
    for expression in re.findall(r"\{\{(.*?)\}\}", SOURCE, re.DOTALL):
        assert re.match(
            r"\s-?(num|ci|of_reference|param|printed|setting|effect|part|tally|claims|says|require"
            r"|show\((?:blank|level|centred|printed|constant)|ssim|faces|cells \||others \|)",
            expression,
        ), expression


def test_every_paragraph_rests_on_a_guard_or_is_marked_as_a_fact_about_what_was_published():
    for block in paragraphs(SOURCE):
        if not block.startswith(("{{ claims(", "{% ")):
            assert GUARD.search(block), block


def test_the_page_follows_a_changed_number(results):
    def edit(content):
        content["acc_ten"] += 1.0

    assert rendered(SOURCE, sources(results("gan_transform/proposed.json", edit))) != TEXT


@pytest.mark.parametrize("paper", ["colourisation", "deep_features", "gan_transform"])
def test_a_sentence_is_refused_when_its_verdict_changes(results, paper):
    def edit(content):
        for detail in content["details"]:
            if detail["verdict"] == "contradicted":
                detail["verdict"] = "supported"

    with pytest.raises(InputError, match="rests on claim .* expected contradicted, found supp"):
        rendered(SOURCE, sources(results(f"{paper}/claims.json", edit)))


def test_a_sentence_is_refused_when_its_inequality_turns(results):
    def edit(content):
        content["ssim_ga_unet"] = 0.9

    with pytest.raises(InputError, match="the GAN attack with a U-Net fails on plain images"):
        rendered(SOURCE, sources(results("gan_transform/plain.json", edit)))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ('{{ num("gan_transform/plain.json acc_tenn", ".1f") }}', "did you mean 'acc_ten'"),
        ('{{ num("gan_transform/matrix.json floors[name=blank].ssim", ".1f") }}', "found 2"),
        ('{{ part("gan_transform", "X1", "itn", "hi") }}', "no such part"),
        ('{{ verdict_of("gan_transform") }}', "cannot be filled"),
        ('{{ num("gan_transform/plain.json", ".1f") ', "cannot be filled"),
    ],
)
def test_a_wrong_template_is_one_sentence(template, words):
    with pytest.raises(InputError, match=words):
        rendered(template, sources())


def test_keys_are_followed_into_maps_and_lists():
    content = {"rows": [{"a": "x", "b": 1}, {"a": "y", "b": {"c": 2}}]}
    assert find(content, "rows[a=y].b.c", "here") == 2
    assert find(content, "rows", "here") == content["rows"]


def test_numbers_have_a_true_minus_and_no_negative_zero():
    assert written(-0.25, ".2f") == "−0.25"
    assert written(-0.001, ".1f") == "0.0"
    assert written(0.125, "+.1f", 100) == "+12.5"
