"""What the layer report says of given figures: what to do, which layers are dead, as text, as JSON, as a picture."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlr_rag.errors import InvalidInputError, MissingExtraError
from mlr_rag.evaluation.layer_plot import check_plot, plot
from mlr_rag.evaluation.layer_report import LayerReport, Population, describe
from mlr_rag.evaluation.layer_scores import System, systems_of
from mlr_rag.evaluation.layer_table import table
from mlr_rag.evaluation.layers import _compared, _detectable


def population(num_layers: int, share: float) -> Population:
    """The last layer's score is above all others but for a share, which the layer before it wins."""
    above = np.triu(np.zeros((num_layers, num_layers)))
    above[-1, :-1] = 1 - share
    above[-2, -1] = share
    return Population(
        1000, [*[0.0] * (num_layers - 2), share, 1 - share], above.tolist(), [0.1] * num_layers, [0.02] * num_layers
    )


def make_report(
    gains: dict[System, float] | None = None, queries: int = 200, share: float = 0.2, num_layers: int = 4
) -> LayerReport:
    """Every system is the last layer with a little noise, and a gain where one is given."""
    draw = np.random.default_rng(0)
    base = draw.random(queries) * 0.5
    values = {
        system: base + (gains or {}).get(system, 0.0) + (draw.normal(0, 0.05, queries) if number else 0)
        for number, system in enumerate(systems_of(num_layers))
    }
    return LayerReport(
        model="a-model", num_layers=num_layers, similarity="cosine", collection="c", split="dev", documents=5000, cut=7,
        queries=queries, of_queries=300, systems=_compared(values, 0), detectable=_detectable(values, num_layers),
        populations={name: population(num_layers, share) for name in ("all", "retrieved", "relevant")}, seconds=1.0,
    )  # fmt: skip


def test_without_a_sure_gain_the_last_layer_is_kept_and_what_could_be_seen_is_said() -> None:
    report = make_report()
    assert report.best is None
    assert report.recommendation.startswith("Keep the last layer: no pooling of it with another layer is a sure gain.")
    assert f"These 200 queries are enough to show {report.detectable:.3f} nDCG@10." in report.recommendation
    assert 3.5 < report.detectable / (0.05 / 200**0.5) < 4.5  # standard errors


def test_a_gain_that_only_one_test_of_many_would_take_for_sure_is_not_recommended() -> None:
    gain = 0.009
    report = make_report({System("mean", (2, 4)): gain})
    found = {each.system: each for each in report.systems}[System("mean", (2, 4))]
    assert found.difference.p < 0.05 < found.corrected
    assert report.best is None


@pytest.mark.parametrize(("kind", "pooling"), [("mean", "mean"), ("max", "multi_vector")])
def test_a_sure_gain_is_recommended_with_its_interval_and_how_to_build_it(kind: str, pooling: str) -> None:
    report = make_report({System(kind, (2, 4)): 0.04, System(kind, (3, 4)): 0.03})
    assert report.best is not None
    assert report.best.system == System(kind, (2, 4))
    gain = report.best.difference
    assert report.recommendation.startswith(
        f"Layers 2 and 4, {kind}: +0.0{round(1000 * gain.mean)} nDCG@10 [{gain.low:.3f}, {gain.high:.3f}], p = "
    )
    assert f'layers=(2, 4), pooling="{pooling}", start="paper"' in report.recommendation
    assert "corrected for 18 systems" in report.recommendation


@pytest.mark.parametrize("gain", [0.0, 0.04])
def test_dot_products_are_for_research_and_recommend_no_pooling(gain: float) -> None:
    systems = {System("mean", (2, 4)): gain, System("both", (3,)): 2 * gain}
    said = replace(make_report(systems), similarity="dot").recommendation
    assert said.endswith("so nothing is recommended. Measure with cosine to choose layers.")
    assert said.startswith("Layers 2 and 4, mean: +0.0" if gain else "No pooling of the last layer with another layer")
    assert not [word for word in ("Train", "Keep", "pooling=", "Better still") if word in said]


def test_a_sure_loss_is_not_recommended() -> None:
    report = make_report(dict.fromkeys(systems_of(4)[1:], -0.1))
    assert all(each.corrected < 0.05 for each in report.systems[1:])
    assert report.recommendation.startswith("Keep the last layer")


def test_what_no_model_pools_is_told_apart() -> None:
    report = make_report({System("both", (3,)): 0.1, System("mean", (1, 2)): 0.05})
    assert report.best is None
    assert "no pooling of a model: layer 3 on both sides, +0.09" in report.recommendation
    poolable = make_report({System("mean", (3, 4)): 0.1, System("both", (3,)): 0.05})
    assert "no pooling of a model" not in poolable.recommendation


def test_a_layer_is_dead_where_the_retrieved_and_the_relevant_are_never_its_own() -> None:
    assert make_report(share=0.2).dead == [(1, 4), (2, 4)]
    assert make_report(share=0.001).dead == [(1, 4), (2, 4), (3, 4)]
    assert (4, 3) in make_report(share=0.999).dead  # the last layer may be the one
    report = make_report(share=0.001)
    often = replace(report, populations=report.populations | {"relevant": population(4, 0.2)})
    easy = replace(report, populations=report.populations | {"all": population(4, 0.2)})
    assert (3, 4) not in often.dead
    assert (3, 4) in easy.dead  # other documents are too far down for a gradient


@pytest.mark.parametrize("queries", [1, 2, 9])  # 9: no signs of 9 differences are rarer than 2 in 512
def test_too_few_queries_recommend_nothing_and_say_so(queries: int) -> None:
    report = make_report({System("mean", (2, 4)): 0.4}, queries=queries)
    assert report.best is None
    assert report.recommendation.endswith(f"These {queries} queries are too few to show one.")
    assert report.recommendation in table(report).replace("\n", " ")


def test_queries_that_tell_no_system_from_another_show_nothing() -> None:
    assert _detectable({system: np.ones(500) for system in systems_of(3)}, 3) is None


def test_a_layer_that_never_counts_does_not_make_queries_look_sharper() -> None:
    draw = np.random.default_rng(0)
    values = {system: draw.random(100) for system in systems_of(3)}
    dead = values | {System("max", (1, 3)): values[System("one", (3,))]}
    assert _detectable(dead, 3) == pytest.approx(_detectable(values, 3), rel=0.1)


def test_json_holds_every_system_and_what_follows() -> None:
    facts = json.loads(json.dumps(make_report({System("mean", (2, 4)): 0.04}).as_dict(), allow_nan=False))
    assert len(facts["systems"]) == len(systems_of(4))
    assert facts["systems"][0]["system"] == {"kind": "one", "layers": [4]}
    assert facts["systems"][0]["difference"] is None
    assert facts["systems"][1]["difference"].keys() == {"mean", "low", "high", "p"}
    assert facts["populations"].keys() == {"all", "retrieved", "relevant"}
    assert facts["dead"] == [[1, 4], [2, 4]]
    assert facts["recommendation"].startswith("Layers 2 and 4")


def test_the_table_has_a_line_for_each_system_but_the_worst_that_no_model_pools() -> None:
    report = make_report({System("mean", (1, 2)): -0.2}, share=0.001)
    shown = table(report)
    lines = shown.splitlines()
    assert lines[:2] == [
        "a-model, 4 layers, cosine",
        "c dev: 200 of 300 queries, 5,000 documents, 7 of them cut; 1 s",
    ]
    for system in systems_of(4):
        if len(system.layers) == 1 or 4 in system.layers:
            assert any(line.startswith(f"{describe(system)} ") for line in lines)
    assert "mean of layers 1 and 2" not in shown
    assert "3 pairs without the last layer rank below these" in shown
    last = report.last.ndcg
    row = next(line for line in lines if line.startswith("layer 4 "))
    assert row.split() == ["layer", "4", f"{last.mean:.4f}", f"{last.low:.3f}", "to", f"{last.high:.3f}"]
    assert "\n\ndead: layer 1 beside layer 4, layer 2 beside layer 4, layer 3 beside layer 4;" in shown
    assert shown.replace("\n", " ").endswith(report.recommendation)
    assert max(map(len, lines)) <= 120


def test_no_dead_layer_is_not_mentioned() -> None:
    assert "dead" not in table(make_report(share=0.3, num_layers=2))


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml")])
def test_the_plot_is_written_in_the_format_of_its_name(tmp_path: Path, name: str, magic: bytes) -> None:
    plot(make_report(), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_the_plot_is_on_an_opaque_ground(tmp_path: Path) -> None:
    from matplotlib.image import imread

    plot(make_report(), tmp_path / "a.png")
    assert (imread(tmp_path / "a.png")[:2, :, 3] == 1).all()


def test_plotting_changes_nothing_of_the_callers_matplotlib(tmp_path: Path) -> None:
    import matplotlib as mpl
    from matplotlib import pyplot

    before = dict(mpl.rcParams)
    plot(make_report(num_layers=2), tmp_path / "a.png")
    assert dict(mpl.rcParams) == before
    assert pyplot.get_fignums() == []


def test_where_nothing_can_be_drawn_it_says_so_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match=r"no such format of a plot: found a.jpg, expected .png or .svg"):
        check_plot(tmp_path / "a.jpg")
    with pytest.raises(InvalidInputError, match="no folder to draw to"):
        check_plot(tmp_path / "missing" / "a.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mlr-rag\[report\]'"):
        check_plot(tmp_path / "a.png")
