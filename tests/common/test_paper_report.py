"""What the reports of all papers share."""

import json
import re

import pytest

from stages.common.errors import InputError
from stages.common.paper_report import (
    count,
    fingerprint,
    flat,
    judged,
    link,
    links,
    listed,
    made_of,
    optional,
    sentence,
    sources,
    verdict_of,
)
from stages.common.report import Html

PARAMS = {
    "profile": "tiny",
    "alpha": {"train": {"lr": 0.1, "widths": [1, 2]}, "variants": {"a": {}}},
    "profiles": {"tiny": {"alpha": {"train": {"lr": 0.5}}}},
}
CLAIMS = [{"id": "C1", "verdict": "supported"}, {"id": "C2"}]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "params.yaml").write_text(json.dumps(PARAMS))
    paper = tmp_path / "stages" / "alpha" / "paper.yaml"
    paper.parent.mkdir(parents=True)
    paper.write_text(json.dumps({"claims": [{"id": "C1", "says": "it holds"}, {"id": "C2"}]}))
    prints = tmp_path / "stages" / "data" / "fingerprints"
    prints.mkdir(parents=True)
    (prints / "tiny.json").write_text(json.dumps({"files": 3, "sha256": "ab", "sizes": [1]}))
    (tmp_path / "requirements.txt").write_text("torch==2.0\nNumPy==1.5 # why\n-e .\n")
    return tmp_path


def test_sources_join_what_is_claimed_with_what_was_judged(root):
    results = root / "reports" / "results" / "tiny" / "alpha"
    assert sources("alpha", "tiny", root).claims == [{"id": "C1", "says": "it holds"}, {"id": "C2"}]
    results.mkdir(parents=True)
    (results / "claims.json").write_text(json.dumps({"details": [CLAIMS[0]]}))
    found = sources("alpha", "tiny", root)
    assert found.claims[0] == {"id": "C1", "says": "it holds", "verdict": "supported"}
    assert found.results == results and found.artifacts == root / "artifacts" / "tiny" / "alpha"
    assert found.params["alpha"]["train"]["lr"] == 0.1
    with pytest.raises(InputError):
        sources("alpha", "huge", root)


def test_a_file_that_is_not_there_is_none_and_a_damaged_one_is_refused(root):
    assert optional(root / "none.json") is None
    (root / "bad.json").write_text("{")
    with pytest.raises(InputError):
        optional(root / "bad.json")


def test_words():
    assert [listed(list(s)) for s in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]
    assert [count(n, "image") for n in (0, 1, 2000)] == ["0 images", "1 image", "2,000 images"]
    assert link("<C1>") == '<a href="#&lt;C1&gt;">&lt;C1&gt;</a>'
    assert links(["C1", "C2"]) == '<a href="#C1">C1</a> and <a href="#C2">C2</a>'
    joined = sentence("1 < 2", Html("<b>so</b>"))
    assert joined == "1 &lt; 2<b>so</b>" and isinstance(joined, Html)


def test_a_claim_is_said_with_its_verdict_and_not_at_all_if_there_is_none():
    assert [verdict_of(CLAIMS, id) for id in ("C1", "C2", "C3")] == [
        "supported",
        "not run",
        "not run",
    ]
    assert judged(CLAIMS, "C1") == ' (<a href="#C1">C1</a> supported)'
    assert judged(CLAIMS, "C2") == ' (<a href="#C2">C2</a> not run)'
    assert judged(CLAIMS, "C3") == ""


def test_provenance_has_the_pins_the_fingerprint_and_both_levels_of_parameters(root):
    assert fingerprint("tiny", root) == [
        ("fingerprint of tiny: files", "3"),
        ("fingerprint of tiny: sha256", "ab"),
    ]
    assert fingerprint("tiny", root, "bytes")[0] == ("bytes: files", "3")
    assert fingerprint("other", root) == []
    facts, values = made_of(
        [("profile", "tiny")],
        "alpha",
        "tiny",
        params=PARAMS,
        packages=("torch", "numpy", "scipy"),
        over="a run's",
        without=("variants",),
        root=root,
    )
    assert "torch 2.0, numpy 1.5<" in facts and "reports/provenance/tiny/alpha/" in facts
    text = re.sub(r"<[^>]+>+", " ", values).split()
    for row in ("all profiles train.lr 0.1", "tiny train.lr 0.5"):
        assert row in " ".join(text)
    assert "variants" not in values and "general ones, a run&#x27;s over both" in values
    assert flat({"a": {"b": [1]}, "c": None}) == [("a.b", "[1]"), ("c", "None")]
